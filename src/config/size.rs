//! Sizes as people write them: bytes, or a number with `B`, `KiB`, `MiB` or `GiB`.

const UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Reads `65536`, `64KiB` or `64 KiB`, in bytes; `None` if it is none of these or does not fit.
pub(super) fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = UNITS
        .iter()
        .find_map(|(name, bytes)| Some((text.strip_suffix(name)?.trim_end(), *bytes)))
        .unwrap_or((text, 1));
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// Shows a size as [`parse`] reads it, in the largest unit that divides it.
pub(super) fn format(bytes: u64) -> String {
    UNITS
        .iter()
        .find(|(_, unit)| bytes != 0 && bytes.is_multiple_of(*unit))
        .map_or_else(
            || "0B".to_owned(),
            |(name, unit)| format!("{}{name}", bytes / unit),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_size_is_a_number_of_bytes_or_has_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65_536),
            ("64KiB", 65_536),
            ("64 KiB", 65_536),
            (" 1MiB ", 1 << 20),
            ("2GiB", 2 << 30),
            ("5B", 5),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "KiB",
            "1KB",
            "1k",
            "1kib",
            "-1",
            "+1",
            "1.5MiB",
            "1 2",
            "1KiBKiB",
            "0x10",
            "1_000",
            "18446744073709551616",
            "18446744073709551615KiB",
            "٣KiB",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_size_is_read_as_it_is_shown(bytes in any::<u64>(), shift in 0..40_u32) {
            let bytes = (bytes >> shift) << shift.min(30);
            prop_assert_eq!(parse(&format(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
