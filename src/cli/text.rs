//! Text for terminals: how many columns it takes, how it is cut, and which of its characters a terminal would obey.

/// Characters that take two columns. Source: Unicode Standard Annex 11, wide and full-width blocks.
const WIDE: &[(u32, u32)] = &[
    (0x1100, 0x115f),
    (0x231a, 0x231b),
    (0x23e9, 0x23ec),
    (0x2e80, 0x303e),
    (0x3041, 0x4dbf),
    (0x4e00, 0xa4cf),
    (0xa960, 0xa97f),
    (0xac00, 0xd7a3),
    (0xf900, 0xfaff),
    (0xfe30, 0xfe6f),
    (0xff00, 0xff60),
    (0xffe0, 0xffe6),
    (0x1f300, 0x1f64f),
    (0x1f680, 0x1f6ff),
    (0x1f900, 0x1f9ff),
    (0x20000, 0x3fffd),
];

/// Characters that take none: they change the one before.
const NONE: &[(u32, u32)] = &[
    (0x0300, 0x036f),
    (0x0483, 0x0489),
    (0x0591, 0x05bd),
    (0x064b, 0x065f),
    (0x1ab0, 0x1aff),
    (0x1dc0, 0x1dff),
    (0x200b, 0x200d),
    (0x20d0, 0x20ff),
    (0xfe00, 0xfe0f),
    (0xfe20, 0xfe2f),
    (0xe0100, 0xe01ef),
];

fn is_in(ranges: &[(u32, u32)], character: char) -> bool {
    let code = u32::from(character);
    ranges
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&code))
}

fn width_of(character: char) -> usize {
    match character {
        ' '..='~' => 1,
        _ if is_in(NONE, character) => 0,
        _ if is_in(WIDE, character) => 2,
        _ => 1,
    }
}

/// Columns that a text takes.
pub fn width(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

/// The text, or as much of it as fits so many columns, with an ellipsis.
pub fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 1;
    for character in text.chars() {
        used += width_of(character);
        if used > columns {
            break;
        }
        kept.push(character);
    }
    if columns > 0 {
        kept.push('…');
    }
    kept
}

/// The text with its control characters made visible, and those that reorder what follows: `\x1b`, `\u{202e}`.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::new();
    for character in text.chars() {
        match character {
            '\n' => cleaned.push_str("\\n"),
            '\t' => cleaned.push_str("\\t"),
            '\r' => cleaned.push_str("\\r"),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                cleaned.push_str(&format!("\\u{{{:x}}}", u32::from(character)));
            }
            _ if character.is_control() => {
                cleaned.push_str(&format!("\\x{:02x}", u32::from(character)));
            }
            _ => cleaned.push(character),
        }
    }
    cleaned
}

/// A log line for a terminal: as [`clean`] has it, but tabs stay and colours, which would go on in what follows, are left
/// away.
pub fn clean_line(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\x1b[") {
        let (before, sequence) = rest.split_at(at);
        kept.push_str(before);
        let parameters = sequence[2..].find(|c: char| !c.is_ascii_digit() && c != ';');
        match parameters.map(|end| (end, &sequence[2 + end..])) {
            Some((_, after)) if after.starts_with('m') => rest = &after[1..],
            _ => {
                kept.push_str("\x1b[");
                rest = &sequence[2..];
            }
        }
    }
    kept.push_str(rest);
    let parts: Vec<String> = kept.split('\t').map(clean).collect();
    parts.join("\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_by_columns_not_by_characters() {
        assert_eq!(width("日本 a\u{301}"), 6);
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("longer", 5), "long…");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 1), "…");
        assert_eq!(cut("abc", 0), "");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(
            clean("a\x1b[31m\n\u{9b}\x7f\u{202e}"),
            "a\\x1b[31m\\n\\x9b\\x7f\\u{202e}"
        );
        assert_eq!(clean("Zoë 日本"), "Zoë 日本");
    }

    #[test]
    fn a_log_line_loses_its_colours_and_keeps_its_tabs() {
        assert_eq!(clean_line("\x1b[1;31mred\x1b[0m\tx\x1b[m"), "red\tx");
        assert_eq!(clean_line("\x1b[2Jx\x1b[31"), "\\x1b[2Jx\\x1b[31");
        assert_eq!(clean_line("\x1b]0;title\x07"), "\\x1b]0;title\\x07");
    }
}
