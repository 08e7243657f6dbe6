//! Reads a password: from the terminal without showing it, or a line of standard input.

use std::io::{self, BufRead, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Longest line.
const LONGEST: u64 = 4096;

/// Puts the terminal back as it was.
struct Quiet(Termios);

impl Drop for Quiet {
    fn drop(&mut self) {
        // Nothing can be done where it is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
        eprintln!();
    }
}

/// Asks at the terminal that is standard input. `None`: it was called off, by Ctrl-C or Ctrl-D.
///
/// # Errors
/// The terminal cannot be used.
pub fn password(prompt: &str) -> io::Result<Option<String>> {
    let before = tcgetattr(io::stdin())?;
    let mut modes = before.clone();
    // Byte by byte, so that Ctrl-C is one, too: a signal would leave the terminal mute.
    modes.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    tcsetattr(io::stdin(), OptionalActions::Flush, &modes)?;
    let _quiet = Quiet(before);
    let mut err = io::stderr();
    err.write_all(prompt.as_bytes())?;
    err.flush()?;
    let mut typed = Vec::new();
    for byte in io::stdin().lock().take(LONGEST).bytes() {
        match byte? {
            b'\r' | b'\n' => return into_text(typed).map(Some),
            // Ctrl-C, Ctrl-D, Ctrl-Z.
            3 | 4 | 26 => return Ok(None),
            // Backspace takes a whole character.
            8 | 127 => while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Ctrl-U.
            21 => typed.clear(),
            byte => typed.push(byte),
        }
    }
    Ok(None)
}

/// The first line of standard input, without its end.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub fn line() -> io::Result<Option<String>> {
    let mut line = Vec::new();
    io::stdin()
        .lock()
        .take(LONGEST)
        .read_until(b'\n', &mut line)?;
    if line.ends_with(b"\n") {
        line.pop();
    }
    if line.ends_with(b"\r") {
        line.pop();
    }
    into_text(line).map(Some)
}

fn into_text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not valid UTF-8"))
}
