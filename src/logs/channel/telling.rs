//! What is published of a stream's files, and rotation, which changes what their numbers mean. Called by `channel`.

use std::io;
use std::os::fd::AsFd;

use super::logfile::last_byte;
use super::{Channel, Context};
use crate::logs::index::Kind;
use crate::logs::times::Times;
use crate::logs::{files, read};

impl Channel {
    /// Looks how far the stream has come that we take up, and whether a run has ended there within a line.
    pub(super) fn survey(&mut self, context: &Context) {
        let dir = context.places.open(self.reach.medium, self.id);
        let found = dir.and_then(|dir| {
            let found = files::open_existing(dir.as_fd(), self.stream)?;
            Ok(found.map(|opened| (dir, opened)))
        });
        let mut is_whole = match &found {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        // None, or one that cannot be opened: then writing finds out more.
        if let Ok(Some((dir, opened))) = found {
            let (inode, size) = (opened.inode, opened.size);
            self.reach.find(inode, size);
            if last_byte(&opened.file, size).is_some_and(|byte| byte != b'\n') {
                let index = files::open_index_of(dir.as_fd(), self.stream, inode);
                let (_, cut) = Times::new(index, size, opened.modified).seek(size);
                self.cut_at = cut.then_some((inode, size));
                is_whole = cut;
            }
        }
        self.growth.set_whole(self.stream, is_whole);
        self.reach.cut = self.is_cut();
        self.growth.publish(self.stream, self.reach);
    }

    /// Publishes what the open file holds, and tells those who follow. Called when its times are written.
    pub(super) fn publish(&mut self) {
        if let Some(open) = &self.open {
            self.reach.offset = open.offset;
        }
        self.reach.cut = self.is_cut();
        self.growth.publish(self.stream, self.reach);
        self.growth.tell();
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut_at.is_some_and(|(inode, offset)| {
            self.reach.inode == Some(inode) && self.reach.offset == offset
        })
    }

    /// Gives the next bytes a new file.
    pub(super) fn rotate(&mut self, context: &mut Context) -> io::Result<()> {
        self.record(Kind::Data, context);
        if self.growth.is_to_ask()
            && let Some(look) = context.before_rotation.get()
        {
            let places = &context.places;
            let read = |span, most| read::written(places, self.id, span, most);
            look(self.id, &read);
        }
        if self.reach.medium != self.wanted(context) {
            self.open = None;
            self.move_over(context)?;
            return self.ready(context);
        }
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        self.reach.offset = open.offset;
        self.reach.rotating = true;
        self.growth.publish(self.stream, self.reach);
        let dir = open.dir.as_fd();
        let kept = self.reach.medium.max_files(&context.settings);
        let rotated = files::rotate(dir, self.stream, kept);
        self.reach.rotating = false;
        let opened = rotated.and_then(|()| {
            self.reach.turn_over();
            files::open_current(dir, self.stream)
        });
        let done = opened.and_then(|opened| self.begin(open.dir, opened));
        self.publish();
        done
    }
}
