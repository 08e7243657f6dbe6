//! The configuration that a daemon begins with: that of hxe.toml, or, where a daemon before it has left its own, as much of
//! that as keeps this one from failing where that one served.
//!
//! A daemon that comes after another one was not started by anybody who could mend a mistake. So it is as at a reload: keys
//! that need a restart stay as they were when the guardian was started, and a mistake changes nothing. The texts are kept by
//! the guardian, in memory that only hxe can read, as there are passwords in them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::MemfdFlags;

use crate::config::{Config, Environment, Error};
use crate::guardian::Link;
use crate::report;
use crate::sys;

/// The text that the first daemon served with: its keys that need a restart hold for all that come after it.
const FIRST: &str = "config first";
/// The text that the last daemon served with.
const LAST: &str = "config last";

/// The configuration to begin with.
pub(super) struct Beginning {
    pub(super) config: Config,
    /// What is wrong with the files, where the configuration is not theirs.
    pub(super) mistakes: Vec<String>,
    /// There was a daemon before this one.
    pub(super) is_later: bool,
}

/// Reads the configuration, in the light of what an earlier daemon `left`.
///
/// # Errors
/// There is a mistake, and nothing to go on with.
pub(super) fn read(
    path: Option<&Path>,
    left: &mut BTreeMap<String, OwnedFd>,
) -> Result<Beginning, Error> {
    let environment = Environment::of_process();
    let (first, last) = (text_of(left.remove(FIRST)), text_of(left.remove(LAST)));
    let Some(first) = first else {
        return Ok(Beginning {
            config: Config::load(path, &environment)?,
            mistakes: Vec::new(),
            is_later: false,
        });
    };
    let (first, _) = Config::of_text(path, &first, &environment);
    let (config, mistakes) = match first.reload(path, &environment) {
        Ok((config, changed)) => {
            super::reload::tell_of_restart(&changed);
            (config, Vec::new())
        }
        Err(error) => {
            let Some(last) = last else {
                return Err(error);
            };
            let mistakes = error.lines();
            for line in &mistakes {
                report::error(format_args!("{line}"));
            }
            report::error(format_args!(
                "hxe goes on with the configuration that it had before this mistake"
            ));
            let (mut config, since) = Config::of_text(path, &last, &environment);
            for line in since {
                report::error(format_args!("in the configuration before: {line}"));
            }
            config.hold_restart_keys(&first);
            config.text = last;
            (config, mistakes)
        }
    };
    Ok(Beginning {
        config,
        mistakes,
        is_later: true,
    })
}

/// Has the guardian keep the text that the daemon serves with from now on, for the one that comes after it.
pub(super) fn keep(config: &mut Config, is_first: bool, link: &Link) {
    let text = std::mem::take(&mut config.text);
    if link.guardian().is_none() {
        return;
    }
    let written = rustix::fs::memfd_create("hxe-config", MemfdFlags::CLOEXEC)
        .map_err(io::Error::from)
        .and_then(|fd| {
            let mut file = File::from(fd);
            file.write_all(text.as_bytes())?;
            Ok(file)
        });
    match written {
        Ok(file) => {
            if is_first {
                link.keep(FIRST, file.as_fd());
            }
            link.keep(LAST, file.as_fd());
        }
        Err(error) => report::warn(format_args!(
            "the configuration cannot be kept for a daemon that comes after this one: {}",
            sys::reason(&error)
        )),
    }
}

fn text_of(fd: Option<OwnedFd>) -> Option<String> {
    let mut file = File::from(fd?);
    let mut text = String::new();
    // Its place is shared by all who have it.
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    Some(text)
}
