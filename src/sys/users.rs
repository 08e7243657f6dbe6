//! Users and groups from `/etc/passwd` and `/etc/group`, without NSS.
//!
//! A static glibc binary that calls getpwnam crashes where nsswitch names systemd, and musl has no NSS. Numeric ids are
//! accepted. Nothing is kept: who asks reads the files as they are now. Source: passwd(5), group(5).

use std::io;

/// As whom a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, `gid` included.
    pub groups: Vec<u32>,
    pub user_name: String,
    pub group_name: String,
    /// `/` for a number without an entry.
    pub home: String,
    /// `/bin/sh` where the entry names none.
    pub shell: String,
}

/// Why there is no such identity.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error("there is no user {0:?} in /etc/passwd")]
    NoUser(String),
    #[error("there is no group {0:?} in /etc/group")]
    NoGroup(String),
    /// A numeric user without an entry has no primary group.
    #[error("user {0} has no entry in /etc/passwd, so a group must be named, too")]
    GroupNeeded(String),
    /// The kernel takes the last number for "leave it as it is".
    #[error("{0} is not a user or group id: they go from 0 to 4294967294")]
    NotAnId(String),
    #[error("{path} cannot be read")]
    Unreadable {
        path: &'static str,
        source: io::Error,
    },
}

/// Finds a user, by name or number, and the groups it runs with: without `group` its primary and supplementary groups;
/// with it, that one is the primary. `nobody` and `nogroup` as a group mean each other where only one exists.
///
/// # Errors
/// No such user or group, or the files cannot be read.
pub fn lookup(user: &str, group: Option<&str>) -> Result<Identity, LookupError> {
    Accounts::read()?.lookup(user, group)
}

/// The daemon's own identity, by its uid and gid; names are numbers where there is no entry.
pub fn own() -> Identity {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let mut groups = vec![gid];
    // Cannot fail but for memory; then the primary group is what is known.
    for group in rustix::process::getgroups().unwrap_or_default() {
        if !groups.contains(&group.as_raw()) {
            groups.push(group.as_raw());
        }
    }
    let accounts = Accounts::read().unwrap_or_default();
    Identity {
        groups,
        gid,
        group_name: accounts.group_name(gid),
        ..accounts.identity_of(uid)
    }
}

/// The two files, as they were when they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads `/etc/passwd` and `/etc/group`; one that does not exist counts as empty.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn read() -> Result<Accounts, LookupError> {
        Ok(Accounts {
            passwd: read("/etc/passwd")?,
            group: read("/etc/group")?,
        })
    }

    /// Takes the text of both files. Lines that are none are passed over.
    pub fn from_text(passwd: &str, group: &str) -> Accounts {
        Accounts {
            passwd: passwd.to_owned(),
            group: group.to_owned(),
        }
    }

    /// Does what [`lookup`] does, in these files.
    ///
    /// # Errors
    /// No such user or group.
    pub fn lookup(&self, user: &str, group: Option<&str>) -> Result<Identity, LookupError> {
        // Names come first: one made of digits is still a name. Source: chown(1), POSIX.
        let named = self.users().find(|entry| entry.name == user);
        let (identity, known) = match (named, parse_id(user)?) {
            (Some(entry), _) => (self.identity(&entry), true),
            (None, Some(uid)) => {
                let known = self.users().any(|entry| entry.uid == uid);
                (self.identity_of(uid), known)
            }
            (None, None) => return Err(LookupError::NoUser(user.to_owned())),
        };
        match group {
            Some(group) => {
                let gid = self.group(group)?;
                let members = self.supplementary(&identity.user_name);
                Ok(Identity {
                    gid,
                    group_name: self.group_name(gid),
                    groups: with_first(gid, members),
                    ..identity
                })
            }
            None if known => Ok(identity),
            None => Err(LookupError::GroupNeeded(user.to_owned())),
        }
    }

    /// Finds the id of a group, by name or number; a number needs no entry.
    ///
    /// # Errors
    /// No such group.
    pub fn group(&self, name: &str) -> Result<u32, LookupError> {
        let find = |name: &str| self.groups().find(|entry| entry.name == name);
        let other = match name {
            "nobody" => find("nogroup"),
            "nogroup" => find("nobody"),
            _ => None,
        };
        match (find(name).or(other), parse_id(name)?) {
            (Some(entry), _) => Ok(entry.gid),
            (None, Some(gid)) => Ok(gid),
            (None, None) => Err(LookupError::NoGroup(name.to_owned())),
        }
    }

    /// The identity with this uid; without an entry, its group is its own number.
    fn identity_of(&self, uid: u32) -> Identity {
        match self.users().find(|entry| entry.uid == uid) {
            Some(entry) => self.identity(&entry),
            None => Identity {
                uid,
                gid: uid,
                groups: vec![uid],
                user_name: uid.to_string(),
                group_name: self.group_name(uid),
                home: "/".to_owned(),
                shell: "/bin/sh".to_owned(),
            },
        }
    }

    fn identity(&self, entry: &User) -> Identity {
        let or = |text: &str, default: &str| match text {
            "" => default.to_owned(),
            text => text.to_owned(),
        };
        Identity {
            uid: entry.uid,
            gid: entry.gid,
            groups: with_first(entry.gid, self.supplementary(entry.name)),
            user_name: entry.name.to_owned(),
            group_name: self.group_name(entry.gid),
            home: or(entry.home, "/"),
            shell: or(entry.shell, "/bin/sh"),
        }
    }

    /// Every group that lists the user.
    fn supplementary(&self, user: &str) -> impl Iterator<Item = u32> {
        self.groups()
            .filter(move |entry| entry.members.split(',').any(|member| member.trim() == user))
            .map(|entry| entry.gid)
    }

    fn group_name(&self, gid: u32) -> String {
        self.groups()
            .find(|entry| entry.gid == gid)
            .map_or_else(|| gid.to_string(), |entry| entry.name.to_owned())
    }

    fn users(&self) -> impl Iterator<Item = User<'_>> {
        self.passwd.lines().filter_map(User::parse)
    }

    fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.group.lines().filter_map(Group::parse)
    }
}

/// A line of `/etc/passwd`.
struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
    shell: &'a str,
}

impl<'a> User<'a> {
    fn parse(line: &'a str) -> Option<User<'a>> {
        let mut fields = line.trim_end().split(':');
        let name = name_field(fields.next()?)?;
        let _password = fields.next()?;
        Some(User {
            name,
            uid: id_field(fields.next()?)?,
            gid: id_field(fields.next()?)?,
            home: fields.nth(1).unwrap_or_default(),
            shell: fields.next().unwrap_or_default(),
        })
    }
}

/// A line of `/etc/group`.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    /// Separated by commas.
    members: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Group<'a>> {
        let mut fields = line.trim_end().split(':');
        let name = name_field(fields.next()?)?;
        let _password = fields.next()?;
        Some(Group {
            name,
            gid: id_field(fields.next()?)?,
            members: fields.next().unwrap_or_default(),
        })
    }
}

/// Neither a comment nor one of the `+` and `-` lines of NIS.
fn name_field(text: &str) -> Option<&str> {
    (!text.is_empty() && !text.starts_with(['#', '+', '-'])).then_some(text)
}

fn id_field(text: &str) -> Option<u32> {
    parse_id(text).ok().flatten()
}

/// A number as an id; `None` for what is no number.
fn parse_id(text: &str) -> Result<Option<u32>, LookupError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        Ok(u32::MAX) | Err(_) => Err(LookupError::NotAnId(text.to_owned())),
        Ok(id) => Ok(Some(id)),
    }
}

/// `first` and then the others, none twice.
fn with_first(first: u32, others: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut groups = vec![first];
    for group in others {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}

fn read(path: &'static str) -> Result<String, LookupError> {
    match std::fs::read(path) {
        // Names outside of UTF-8 cannot be asked for; the other lines still count.
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(LookupError::Unreadable { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/bash
# a comment
+nis::0:0:::
broken:x:abc:1:::
short:x
:x:77:77:::
minus:x:-1:-1:::
last:x:4294967295:4294967295:::
web:x:33:33:Web,,,:/var/www:/usr/sbin/nologin
1000:x:2000:2000:a name of digits:/home/digits:
bare:x:50:50
nobody:x:65534:65534:nobody::/usr/sbin/nologin
";
    const GROUP: &str = "\
root:x:0:
web:x:33:
adm:x:4:web, root
disk:x:6:web,web
broken:x:x:web
digits:x:2000:
video:x:44:1000,bare
nogroup:x:65534:
";

    fn accounts() -> Accounts {
        Accounts::from_text(PASSWD, GROUP)
    }

    #[test]
    fn a_user_has_its_primary_and_supplementary_groups() {
        let web = accounts().lookup("web", None).unwrap();
        assert_eq!((web.uid, web.gid), (33, 33));
        assert_eq!(web.groups, [33, 4, 6]);
        assert_eq!((&*web.home, &*web.shell), ("/var/www", "/usr/sbin/nologin"));
        assert_eq!((&*web.user_name, &*web.group_name), ("web", "web"));
    }

    #[test]
    fn a_named_group_becomes_the_primary_one() {
        let web = accounts().lookup("web", Some("video")).unwrap();
        assert_eq!((web.uid, web.gid, web.groups), (33, 44, vec![44, 4, 6]));
        assert_eq!(web.group_name, "video");
    }

    #[test]
    fn a_name_of_digits_comes_before_the_number() {
        assert_eq!(accounts().lookup("1000", None).unwrap().uid, 2000);
        assert_eq!(accounts().lookup("2000", None).unwrap().user_name, "1000");
        assert_eq!(accounts().lookup("1000", None).unwrap().shell, "/bin/sh");
    }

    #[test]
    fn a_number_without_an_entry_needs_a_group() {
        let error = accounts().lookup("7777", None).unwrap_err();
        assert!(matches!(error, LookupError::GroupNeeded(user) if user == "7777"));
        let stranger = accounts().lookup("7777", Some("8888")).unwrap();
        assert_eq!((stranger.uid, stranger.gid), (7777, 8888));
        assert_eq!(stranger.groups, [8888]);
        assert_eq!(
            (&*stranger.user_name, &*stranger.group_name),
            ("7777", "8888")
        );
        assert_eq!(stranger.home, "/");
    }

    #[test]
    fn missing_fields_at_the_end_of_a_line_are_empty() {
        let bare = accounts().lookup("bare", None).unwrap();
        assert_eq!((bare.uid, &*bare.home, &*bare.shell), (50, "/", "/bin/sh"));
        assert_eq!(bare.groups, [50, 44]);
    }

    #[test]
    fn nobody_and_nogroup_mean_each_other_where_only_one_exists() {
        assert_eq!(accounts().group("nobody").unwrap(), 65534);
        let both = Accounts::from_text("", "nobody:x:1:\nnogroup:x:2:\n");
        assert_eq!(both.group("nobody").unwrap(), 1);
        assert_eq!(both.group("nogroup").unwrap(), 2);
        assert!(Accounts::default().group("nobody").is_err());
    }

    #[test]
    fn who_is_not_there_is_named() {
        for name in [
            "",
            "nis",
            "+nis",
            "broken",
            "short",
            "minus",
            "last",
            "# a comment",
            "ROOT",
            "-1",
            "+5",
            "x:y",
        ] {
            let error = accounts().lookup(name, None).unwrap_err();
            assert!(matches!(error, LookupError::NoUser(user) if user == name));
        }
        let error = accounts().lookup("web", Some("broken")).unwrap_err();
        assert!(matches!(error, LookupError::NoGroup(group) if group == "broken"));
    }

    #[test]
    fn numbers_that_are_no_ids_are_refused() {
        for number in ["4294967295", "4294967296", "99999999999999999999"] {
            for error in [
                accounts().lookup(number, None).unwrap_err(),
                accounts().lookup("web", Some(number)).unwrap_err(),
            ] {
                assert!(matches!(error, LookupError::NotAnId(id) if id == number));
            }
        }
        assert_eq!(accounts().group("4294967294").unwrap(), 4_294_967_294);
    }

    #[test]
    fn we_are_somebody() {
        let own = own();
        assert!(own.groups.contains(&own.gid));
        assert!(!own.user_name.is_empty());
    }

    proptest! {
        #[test]
        fn no_files_and_no_names_panic(passwd in any::<String>(), group in "[a-z0-9:,\n]*", user in any::<String>()) {
            let accounts = Accounts::from_text(&passwd, &group);
            let _ = accounts.lookup(&user, Some(&user));
            let _ = accounts.lookup(&user, None);
        }
    }
}
