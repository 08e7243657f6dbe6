/* Where the unwinder of Debian's GCC asks for the tables of a piece of code, which musl does not answer: for a static binary,
 * these are its own. Source: <dlfcn.h> of glibc 2.35, struct dl_find_object; elf(5). */
#include <elf.h>

struct dl_find_object {
    unsigned long long flags;
    void *map_start;
    void *map_end;
    void *link_map;
    void *eh_frame;
    unsigned long long reserved[7];
};

extern const char __executable_start[], _end[];
extern const Elf64_Ehdr __ehdr_start;

int _dl_find_object(void *address, struct dl_find_object *result)
{
    const Elf64_Phdr *header = (const void *)((const char *)&__ehdr_start + __ehdr_start.e_phoff);

    if ((char *)address < __executable_start || (char *)address >= _end)
        return -1;
    for (int i = 0; i < __ehdr_start.e_phnum; i++) {
        if (header[i].p_type == PT_GNU_EH_FRAME) {
            *result = (struct dl_find_object){
                .map_start = (void *)__executable_start,
                .map_end = (void *)_end,
                .eh_frame = (void *)header[i].p_vaddr,
            };
            return 0;
        }
    }
    return -1;
}
