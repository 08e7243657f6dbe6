/* Sets the wall clock to so many seconds since 1970: date(1) of busybox knows none after January 2038 on 32 bits. */
#include <stdlib.h>
#include <time.h>

int main(int count, char **arguments)
{
    struct timespec time = {.tv_sec = count > 1 ? atoll(arguments[1]) : 0};

    return clock_settime(CLOCK_REALTIME, &time) == 0 ? 0 : 1;
}
