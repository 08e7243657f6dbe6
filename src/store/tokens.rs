//! What tokens need to outlive a restart: the secret that signs them, and which were logged out.

use hmac::{Hmac, KeyInit, Mac};
use redb::{ReadableTable, Table};
use sha2::Sha256;

use super::{Error, META, REVOKED, Store, record};
use crate::clock::{self, BootTime, Timestamp};
use crate::report;
use crate::sys::random;

/// In `META`: 32 bytes of secret, then the 32 bytes of the credentials' HMAC under it, so that the file tells neither
/// a password nor whether it is one of somewhere else.
const TOKEN: &str = "token";

type Secret = [u8; 32];

/// A token that was logged out: kept for as long as it would have been good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its id, the claim `jti`.
    pub jti: String,
    /// Its end by the wall clock, the claim `exp`, in seconds since 1970.
    pub exp: i64,
    /// The boot that made it, the claim `bid`.
    pub boot_id: String,
    /// Its end in that boot, the claim `bexp`.
    pub boot_end: BootTime,
}

impl Revoked {
    /// Whether the token has ended anyway, by the clock that decides: in its own boot the boot's, later the wall's.
    pub fn has_ended(&self, boot_id: &str, boot_now: BootTime, now: Timestamp) -> bool {
        if self.boot_id == boot_id {
            self.boot_end <= boot_now
        } else {
            self.exp <= now.as_secs()
        }
    }
}

impl Store {
    /// The secret that signs tokens, if there is one for these credentials: what a login must show, user name and
    /// password or hash.
    pub fn known_token_secret(&self, credentials: &[u8]) -> Result<Option<Secret>, Error> {
        self.read(|transaction| {
            let meta = transaction.open_table(META)?;
            let value = meta.get(TOKEN)?;
            Ok(value.and_then(|value| secret_of(value.value(), credentials)))
        })
    }

    /// The secret that signs tokens, made when first needed. When `credentials` are not those that it was made for, it is
    /// made anew and all tokens end.
    pub fn token_secret(&self, credentials: &[u8]) -> Result<Secret, Error> {
        if let Some(secret) = self.known_token_secret(credentials)? {
            return Ok(secret);
        }
        // Outside of the store's lock: early after boot, the kernel may have no random numbers for minutes.
        let fresh: Secret =
            random::bytes().map_err(|error| Error::Database(redb::Error::Io(error)))?;
        self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            let other = meta
                .get(TOKEN)?
                .and_then(|value| secret_of(value.value(), credentials));
            if let Some(secret) = other {
                return Ok(secret);
            }
            let mut record = fresh.to_vec();
            record.extend_from_slice(&tag(&fresh, credentials).finalize().into_bytes());
            meta.insert(TOKEN, record.as_slice())?;
            // No token of the old secret is good any more, logged out or not.
            remove_where(&mut transaction.open_table(REVOKED)?, |_, _| true)?;
            Ok(fresh)
        })
    }

    /// Forgets a secret that was made for other credentials, and with it all tokens. Makes none in its place: nobody needs
    /// random numbers before the next login.
    pub fn end_other_tokens(&self, credentials: &[u8]) -> Result<(), Error> {
        let others = self.read(|transaction| {
            let meta = transaction.open_table(META)?;
            let value = meta.get(TOKEN)?;
            Ok(value.is_some_and(|value| secret_of(value.value(), credentials).is_none()))
        })?;
        if !others {
            return Ok(());
        }
        self.write(|transaction| {
            transaction.open_table(META)?.remove(TOKEN)?;
            remove_where(&mut transaction.open_table(REVOKED)?, |_, _| true)
        })
    }

    /// Remembers a logout, and forgets those whose tokens have ended anyway.
    pub fn revoke(&self, token: Revoked) -> Result<(), Error> {
        let (boot_id, boot_now, now) = (clock::boot_id(), BootTime::now(), Timestamp::now());
        self.write(|transaction| {
            let mut table = transaction.open_table(REVOKED)?;
            // What cannot be understood is kept: it may come from a newer hxe that takes over again.
            remove_where(&mut table, |jti, value| {
                record::decode_revoked(jti, value)
                    .is_ok_and(|old| old.has_ended(boot_id, boot_now, now))
            })?;
            table.insert(
                token.jti.as_str(),
                record::encode_revoked(&token).as_slice(),
            )?;
            Ok(())
        })
    }

    /// All tokens that were logged out.
    pub fn revoked(&self) -> Result<Vec<Revoked>, Error> {
        self.read(|transaction| {
            let table = transaction.open_table(REVOKED)?;
            let mut tokens = Vec::new();
            for row in table.iter()? {
                let (jti, value) = row?;
                match record::decode_revoked(jti.value(), value.value()) {
                    Ok(token) => tokens.push(token),
                    Err(why) => report::error(format_args!(
                        "a logout cannot be read from the database, so its token may be good again ({why})"
                    )),
                }
            }
            Ok(tokens)
        })
    }
}

/// Removes the logouts that `is_over` names. redb's own `retain` takes 15 KB more of code.
fn remove_where(
    table: &mut Table<&str, &[u8]>,
    is_over: impl Fn(&str, &[u8]) -> bool,
) -> Result<(), Error> {
    let mut over = Vec::new();
    for row in table.iter()? {
        let (jti, value) = row?;
        if is_over(jti.value(), value.value()) {
            over.push(jti.value().to_owned());
        }
    }
    for jti in over {
        table.remove(jti.as_str())?;
    }
    Ok(())
}

/// The secret in a `TOKEN` record, if it was made for these credentials.
fn secret_of(record: &[u8], credentials: &[u8]) -> Option<Secret> {
    let (secret, stored) = record.split_first_chunk()?;
    tag(secret, credentials).verify_slice(stored).ok()?;
    Some(*secret)
}

fn tag(secret: &Secret, credentials: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(credentials);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(boot_id: &str, boot_now: u64, now: i64, ended: bool) {
        let token = Revoked {
            jti: "a".into(),
            exp: 1_000,
            boot_id: "this".into(),
            boot_end: BootTime::from_micros(50),
        };
        let (boot_now, now) = (
            BootTime::from_micros(boot_now),
            Timestamp::from_micros(now * 1_000_000),
        );
        assert_eq!(token.has_ended(boot_id, boot_now, now), ended);
    }

    #[test]
    fn in_its_own_boot_a_token_ends_by_the_boot_clock_only() {
        check("this", 49, 9_999, false);
        check("this", 50, 0, true);
    }

    #[test]
    fn in_a_later_boot_a_token_ends_by_the_wall_clock() {
        check("later", 9_999, 999, false);
        check("later", 0, 1_000, true);
    }
}
