//! A line's level, as the line itself says it.
//!
//! Pure, and quick: it runs on every line that is read. Looks at the first 256 bytes only, where loggers write the
//! level: a syslog prefix, a JSON or logfmt field, or a word in front of the message. Prose that merely mentions an
//! error has no level. Called by `lines`.

use super::Level;

/// How much of a line is looked at.
pub const HEAD: usize = 256;

/// Words in front of the message, at most: time, zone, host, program, thread, logger.
const WORDS: usize = 12;

/// The level that `line` states, if it states one. Only the first [`HEAD`] bytes matter.
pub fn detect(line: &[u8]) -> Option<Level> {
    let head = &line[..line.len().min(HEAD)];
    let mut plain = [0; HEAD];
    let head = without_colours(head, &mut plain).trim_ascii_start();
    if head.first() == Some(&b'{') {
        return json(head);
    }
    syslog(head)
        .or_else(|| klog(head))
        .or_else(|| prefix(head))
        .or_else(|| logfmt(head))
}

/// `head` without its ANSI escape sequences (`ESC [ ... letter`), copied into `plain` only if there are any.
fn without_colours<'a>(head: &'a [u8], plain: &'a mut [u8; HEAD]) -> &'a [u8] {
    const ESCAPE: u8 = 0x1b;
    if !head.contains(&ESCAPE) {
        return head;
    }
    let mut len = 0;
    let mut rest = head;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == ESCAPE && tail.first() == Some(&b'[') {
            let end = tail[1..].iter().position(|b| (0x40..=0x7e).contains(b));
            rest = end.map_or(&[], |at| &tail[at + 2..]);
        } else {
            plain[len] = byte;
            len += 1;
        }
    }
    &plain[..len]
}

/// `<3>` or `<134>`: priority is facility * 8 + severity. Source: RFC 5424 6.2.1, sd-daemon(3).
fn syslog(head: &[u8]) -> Option<Level> {
    let rest = head.strip_prefix(b"<")?;
    let end = rest.iter().take(4).position(|&b| b == b'>')?;
    match number(&rest[..end])? {
        priority @ 0..=191 => Some(severity(priority % 8)),
        _ => None,
    }
}

/// 0 (emergency) to 7 (debug).
fn severity(number: u32) -> Level {
    match number {
        0..=3 => Level::Error,
        4 => Level::Warn,
        5 | 6 => Level::Info,
        _ => Level::Debug,
    }
}

/// `E0101 12:00:00.000000`: severity letter, month, day. Source: klog and glog.
fn klog(head: &[u8]) -> Option<Level> {
    let (letter, rest) = head.split_first()?;
    let date = rest.get(..4)?.iter().all(u8::is_ascii_digit);
    let time = rest.get(4) == Some(&b' ') && rest.get(5).is_some_and(u8::is_ascii_digit);
    if date && time {
        letter_level(*letter)
    } else {
        None
    }
}

fn letter_level(letter: u8) -> Option<Level> {
    match letter {
        b'C' | b'E' | b'F' => Some(Level::Error),
        b'W' => Some(Level::Warn),
        b'I' => Some(Level::Info),
        b'D' => Some(Level::Debug),
        _ => None,
    }
}

/// The value of the field that names the level in a JSON object, outermost fields only.
fn json(head: &[u8]) -> Option<Level> {
    let mut depth = 0_u32;
    let mut at = 0;
    while let Some(&byte) = head.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let (text, end) = json_string(head, at);
                at = end;
                if depth == 1
                    && is_level_key(text)
                    && let Some(value) = head[end..].trim_ascii_start().strip_prefix(b":")
                {
                    return json_value(value.trim_ascii_start());
                }
            }
            _ => {}
        }
    }
    None
}

/// The string whose first byte is at `from`, escapes as they are, and where what follows its closing quote begins.
fn json_string(head: &[u8], from: usize) -> (&[u8], usize) {
    let mut at = from;
    while let Some(&byte) = head.get(at) {
        match byte {
            b'"' => return (&head[from..at], at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    (&head[from..], head.len())
}

fn json_value(value: &[u8]) -> Option<Level> {
    if let Some(text) = value.strip_prefix(b"\"") {
        return field_value(text);
    }
    let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
    match number(&value[..digits])? {
        n @ 0..=7 => Some(severity(n)),
        // pino and bunyan: 10 trace, 20 debug, 30 info, 40 warn, 50 error, 60 fatal.
        8..=29 => Some(Level::Debug),
        30..=39 => Some(Level::Info),
        40..=49 => Some(Level::Warn),
        _ => Some(Level::Error),
    }
}

/// `level=warn`, `lvl="error"`: the key at the begin of a word, outside of quotes.
fn logfmt(head: &[u8]) -> Option<Level> {
    let mut quoted = false;
    let mut word = 0;
    for (at, &byte) in head.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b' ' | b'\t' | b',' | b'[' | b'(' => word = at + 1,
            b'=' if is_level_key(&head[word..at]) => {
                let value = &head[at + 1..];
                return field_value(value.strip_prefix(b"\"").unwrap_or(value));
            }
            _ => {}
        }
    }
    None
}

fn is_level_key(key: &[u8]) -> bool {
    const KEYS: [&[u8]; 8] = [
        b"level",
        b"lvl",
        b"severity",
        b"loglevel",
        b"log_level",
        b"log.level",
        b"levelname",
        b"@l",
    ];
    key.len() <= 9 && KEYS.iter().any(|known| key.eq_ignore_ascii_case(known))
}

/// A field's value: a word, or what begins like one. Here, unlike in prose, `information` is a level.
fn field_value(value: &[u8]) -> Option<Level> {
    let word = letters(value);
    level_word(word).or_else(|| {
        (word.eq_ignore_ascii_case(b"information") || word.eq_ignore_ascii_case(b"informational"))
            .then_some(Level::Info)
    })
}

/// Looks for a level among what loggers write in front of a message, and gives up at the first word of prose.
fn prefix(head: &[u8]) -> Option<Level> {
    let mut rest = head;
    // The bracket in which we are, and whether a time stands directly before.
    let mut inside = None;
    let mut after_time = false;
    for _ in 0..WORDS {
        let skipped = rest.iter().take_while(|&&b| is_separator(b)).count();
        for &byte in &rest[..skipped] {
            match byte {
                b'[' | b'(' | b'<' | b'|' => inside = Some(byte),
                b']' | b')' | b'>' => inside = None,
                _ => {}
            }
        }
        let opened = rest[..skipped].trim_ascii_end().last().copied();
        rest = &rest[skipped..];
        let token = &rest[..rest.iter().take_while(|&&b| !is_separator(b)).count()];
        if token.is_empty() {
            return None;
        }
        if let Some(level) = stated(rest, opened, after_time) {
            return Some(level);
        }
        let next = &rest[token.len()..];
        let has_time = is_time(token);
        if !(has_time
            || inside.is_some_and(|bracket| bracket != b'|')
            || is_neutral(token, next, after_time))
        {
            return None;
        }
        // A zone, a month or a dash between time and level changes nothing.
        after_time = has_time || after_time && token.len() <= 5 && !token.ends_with(b":");
        rest = next;
    }
    None
}

fn is_separator(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | b'\t' | b'[' | b']' | b'(' | b')' | b'<' | b'>' | b'|'
    )
}

/// The level that the word at the begin of `rest` states: by its brackets, its capitals, its colon or its place.
fn stated(rest: &[u8], opened: Option<u8>, after_time: bool) -> Option<Level> {
    let word = letters(rest);
    let after = &rest[word.len()..];
    let next = after.first().copied();
    if opened == Some(b'[') && word.len() == 1 {
        let dated = next == Some(b' ') && after.get(1).is_some_and(u8::is_ascii_digit);
        return letter_level(word[0]).filter(|_| next == Some(b']') || dated);
    }
    let level = level_word(word)?;
    let closed = matches!(
        (opened, after.trim_ascii_start().first()),
        (Some(b'['), Some(b']'))
            | (Some(b'('), Some(b')'))
            | (Some(b'<'), Some(b'>'))
            | (Some(b'|'), Some(b'|'))
    );
    let capitals = word.iter().all(u8::is_ascii_uppercase);
    let says_so = match next {
        None => capitals,
        Some(b':') => capitals || after.get(1).is_none_or(|b| b.is_ascii_whitespace()),
        // error[E0425]: and ERROR[main]
        Some(b'[') => true,
        Some(b' ' | b'\t') => {
            let message = after.trim_ascii_start();
            let dash = message.starts_with(b"- ") || message.starts_with(b"| ");
            capitals || after_time || dash
        }
        Some(b'!' | b',' | b'/' | b'|' | b']' | b')' | b'>') => capitals,
        Some(_) => false,
    };
    (closed || says_so).then_some(level)
}

/// Whether `token` can stand between the begin of a line and its level: `next` is what follows.
fn is_neutral(token: &[u8], next: &[u8], after_time: bool) -> bool {
    let last = token[token.len() - 1];
    if token.contains(&b'=') {
        return false;
    }
    if token.iter().any(u8::is_ascii_digit) || !token.iter().any(u8::is_ascii_alphabetic) {
        return true;
    }
    let program = last == b':' || next.starts_with(b"[");
    let ruby = token.len() == 2 && last == b',';
    let zone = after_time && token.len() <= 5 && token.iter().all(u8::is_ascii_uppercase);
    let logger = next.starts_with(b" - ") || next.starts_with(b" | ") || next.starts_with(b"|");
    // Mar 14 12:00:00 host app[1]: ...
    let host = after_time && {
        let following = next.trim_ascii_start();
        let end = following.iter().position(|&b| b == b' ');
        let name = &following[..end.unwrap_or(following.len())];
        name.ends_with(b":") && level_word(letters(name)).is_none()
    };
    program || ruby || zone || logger || host || is_calendar(token)
}

/// `12:00:00,123`, `2024-01-01T12:00:00Z`, `2024/01/01`.
fn is_time(token: &[u8]) -> bool {
    let digits = token.iter().filter(|b| b.is_ascii_digit()).count();
    let colons = token[..token.len() - 1]
        .iter()
        .filter(|&&b| b == b':')
        .count();
    let dashes = token.iter().filter(|&&b| b == b'-' || b == b'/').count();
    digits >= 4 && (colons > 0 || dashes > 1) && token[0].is_ascii_digit()
}

fn is_calendar(token: &[u8]) -> bool {
    const NAMES: [&[u8; 3]; 19] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
        b"Dec", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun",
    ];
    let name = token.strip_suffix(b",").unwrap_or(token);
    NAMES.iter().any(|known| name == *known)
}

fn letters(text: &[u8]) -> &[u8] {
    let len = text.iter().take_while(|b| b.is_ascii_alphabetic()).count();
    &text[..len]
}

fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 4 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |n, b| n * 10 + u32::from(b - b'0')))
}

/// The level that a word names, in any case.
fn level_word(word: &[u8]) -> Option<Level> {
    let mut lower = [0; 9];
    let lower = lower.get_mut(..word.len())?;
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    match &*lower {
        b"alert" | b"crit" | b"critical" | b"emerg" | b"emergency" | b"err" | b"error"
        | b"fatal" | b"panic" | b"severe" => Some(Level::Error),
        b"warn" | b"warning" | b"wrn" => Some(Level::Warn),
        b"inf" | b"info" | b"notice" => Some(Level::Info),
        b"dbg" | b"debug" | b"trace" | b"trc" | b"verbose" => Some(Level::Debug),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(line: &str, level: Option<Level>) {
        assert_eq!(detect(line.as_bytes()), level, "{line:?}");
    }

    #[test]
    fn what_loggers_write_is_understood() {
        for (line, level) in [
            ("[WARN] disk is hot", Level::Warn),
            ("[warning] disk is hot", Level::Warn),
            ("[ error ] x", Level::Error),
            ("time=1 level=debug msg=x", Level::Debug),
            ("level=\"error\" msg=x", Level::Error),
            ("{\"level\":\"error\",\"msg\":\"x\"}", Level::Error),
            (
                "{\"msg\": \"no error\", \"severity\": \"NOTICE\"}",
                Level::Info,
            ),
            ("{\"level\":30,\"msg\":\"x\"}", Level::Info),
            ("{\"level\":60}", Level::Error),
            ("{\"Level\":\"Information\"}", Level::Info),
            ("<3>cannot", Level::Error),
            ("<134>Oct 11 22:14:15 host app: x", Level::Info),
            ("<7>x", Level::Debug),
            ("ERROR: no", Level::Error),
            ("error: could not compile", Level::Error),
            ("error[E0425]: cannot find", Level::Error),
            ("WARN no", Level::Warn),
            ("Warning: old", Level::Warn),
            ("INFO started", Level::Info),
            ("DEBUG x", Level::Debug),
            ("E0101 12:00:00.000000 1 a.go:1] x", Level::Error),
            ("fatal: not a git repository", Level::Error),
            ("panic: runtime error", Level::Error),
            ("WARNING:root:old", Level::Warn),
            ("2024-01-01 12:00:00,123 - app - ERROR - x", Level::Error),
            (
                "2024-01-01 12:00:00.123  WARN 1 --- [main] c.A : x",
                Level::Warn,
            ),
            (
                "2024-01-01 12:00:00 UTC [12] ERROR:  relation",
                Level::Error,
            ),
            ("2024/01/01 12:00:00 [error] 1#0: x", Level::Error),
            ("[2024-01-01T00:00:00Z ERROR app] x", Level::Error),
            ("[2024-01-01 00:00:00,000: INFO/MainProcess] x", Level::Info),
            ("[app] [trace] x", Level::Debug),
            ("12:00:00.1 [main] DEBUG a.B - x", Level::Debug),
            ("12:00:01 info starting", Level::Info),
            ("Mar 14 12:00:00 host app[1]: ERROR x", Level::Error),
            ("E, [2024-01-01T00:00:00 #12] ERROR -- : x", Level::Error),
            ("[W 12:00:00 app] x", Level::Warn),
            ("info  - ready", Level::Info),
            ("\x1b[31mERROR\x1b[0m x", Level::Error),
            ("\x1b[1m[\x1b[33mWARN\x1b[0m] x", Level::Warn),
            ("2024-01-01T00:00:00Z |WARN| x", Level::Warn),
            ("   ERROR indented", Level::Error),
            ("CRITICAL: x", Level::Error),
            ("ERROR", Level::Error),
        ] {
            check(line, Some(level));
        }
    }

    #[test]
    fn prose_that_mentions_a_level_has_none() {
        for line in [
            "",
            "no error occurred",
            "No error: all is well",
            "finished, errors: 0, warnings: 2",
            "errors: 0",
            "information about the system",
            "Information: none",
            "an error is near",
            "error handling is on",
            "12:00:00 no error occurred",
            "12:00:00 last error: none",
            "404 error pages",
            "DEBUG=1 make",
            "infos",
            "error::Error is a trait",
            "{\"msg\":\"level: error\"}",
            "{\"a\":{\"level\":\"error\"}}",
            "msg=\"set level=debug\"",
            "<b>bold</b>",
            "<999>x",
            "Listening on port 8080",
            "[x] done",
            "warningly",
        ] {
            check(line, None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_harm(line in prop::collection::vec(any::<u8>(), 0..600)) {
            detect(&line);
        }

        #[test]
        fn any_text_made_of_the_parts_is_looked_at_without_harm(
            line in r#"([\[\]<>{}|:=",\\ \x1b0-9-]|level|ERROR|warn|E0101|12:00:00){0,40}"#
        ) {
            detect(line.as_bytes());
        }

        #[test]
        fn a_logger_in_front_of_any_message_decides(message in ".{0,300}") {
            check(&format!("2024-01-01T00:00:00Z WARN {message}"), Some(Level::Warn));
            check(&format!("[error] {message}"), Some(Level::Error));
        }
    }
}
