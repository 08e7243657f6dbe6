//! Who is logged in: the secret that signs tokens, and the tokens that were logged out, as the store keeps them and in
//! memory; and the streams that end with their token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::{ApiError, Cause};
use super::token::{self, Claims, Moment, Secret};
use crate::clock::{self, BootTime, Timestamp};
use crate::http::{Control, End};
use crate::report;
use crate::store::{self, Revoked, Store};
use crate::sys::random;

/// Room for so many logouts is kept, whatever has ended.
const SMALL: usize = 64;

/// What a login must show, as a digest: its change ends all tokens.
pub type Credentials = [u8; 32];

/// A good token.
#[derive(Clone, Debug)]
pub struct Session {
    pub claims: Claims,
    /// Those that held when it was found good.
    pub credentials: Credentials,
}

/// All sessions.
pub struct Sessions {
    store: Arc<Store>,
    keys: Mutex<Keys>,
}

struct Keys {
    credentials: Credentials,
    /// `None` until the first login makes it: at boot nobody should wait for random numbers.
    secret: Option<Secret>,
    /// By token id.
    revoked: HashMap<String, Revoked>,
    /// Streams that are open, with the ids of their tokens. As many as there may be streams, and a few that begin.
    watched: Vec<(String, Arc<Control>)>,
}

/// A stream is ended with its session, as long as this is kept.
pub struct Watch {
    sessions: Arc<Sessions>,
    claims: Claims,
    control: Arc<Control>,
}

impl Watch {
    /// When the token ends by itself, as far as that can be said now; see [`Claims::end`].
    pub fn end(&self) -> BootTime {
        self.claims.end(&present())
    }

    pub fn claims(&self) -> &Claims {
        &self.claims
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut keys = self.sessions.keys();
        let own = keys.watched.iter().position(|(jti, control)| {
            *jti == self.claims.jti && Arc::ptr_eq(control, &self.control)
        });
        // One of them: a token that is shown twice on one stream is watched twice for a moment.
        own.map(|at| keys.watched.swap_remove(at));
    }
}

impl Sessions {
    /// Takes up what the store knows. If the credentials changed since it was written, all tokens end.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open(store: Arc<Store>, credentials: Credentials) -> Result<Sessions, store::Error> {
        match store.end_other_tokens(&credentials) {
            // They end all the same, and would come back only together with their credentials.
            Err(store::Error::Disk(error)) => report::warn(format_args!(
                "the end of all tokens cannot be written to the disk: {error}"
            )),
            ended => ended?,
        }
        let revoked = store.revoked()?;
        let keys = Keys {
            credentials,
            secret: store.known_token_secret(&credentials)?,
            revoked: revoked
                .into_iter()
                .map(|token| (token.jti.clone(), token))
                .collect(),
            watched: Vec::new(),
        };
        Ok(Sessions {
            store,
            keys: Mutex::new(keys),
        })
    }

    /// Takes new credentials, which end all tokens; the same ones change nothing.
    ///
    /// # Errors
    /// The store failed, and the old ones still hold.
    pub fn set_credentials(&self, credentials: Credentials) -> Result<(), store::Error> {
        let mut keys = self.keys();
        if keys.credentials == credentials {
            return Ok(());
        }
        self.store.end_other_tokens(&credentials)?;
        keys.secret = None;
        keys.credentials = credentials;
        for (_, control) in &keys.watched {
            control.end(End::Session);
        }
        Ok(())
    }

    /// What a token says, if it is good.
    pub fn check(&self, token: &str) -> Option<Session> {
        let (secret, credentials) = {
            let keys = self.keys();
            (keys.secret?, keys.credentials)
        };
        token::verify(token, &secret, &present())
            .filter(|claims| !self.keys().revoked.contains_key(&claims.jti))
            .map(|claims| Session {
                claims,
                credentials,
            })
    }

    /// A new token for `user`, who has shown `credentials`.
    ///
    /// # Errors
    /// `InvalidCredentials` if those do not hold any more; no random numbers; the store failed.
    pub fn begin(
        &self,
        user: &str,
        credentials: &Credentials,
        lifetime: Duration,
    ) -> Result<(String, Claims), ApiError> {
        let id = random_id()?;
        let secret = {
            let mut keys = self.keys();
            if keys.credentials != *credentials {
                return Err(ApiError::InvalidCredentials);
            }
            match keys.secret {
                Some(secret) => secret,
                None => *keys.secret.insert(self.store.token_secret(credentials)?),
            }
        };
        let claims = Claims::new(user, id, lifetime, &present());
        Ok((token::sign(&claims, &secret), claims))
    }

    /// Ends a token; on disk when this returns.
    ///
    /// # Errors
    /// The store failed, and the token is still good.
    pub fn end(&self, claims: &Claims) -> Result<(), store::Error> {
        let token = Revoked {
            jti: claims.jti.clone(),
            exp: claims.exp,
            boot_id: claims.bid.clone(),
            boot_end: claims.boot_end(),
        };
        self.store.revoke(token.clone())?;
        let now = present();
        let mut keys = self.keys();
        keys.revoked
            .retain(|_, token| !token.has_ended(now.boot_id, now.boot, now.wall));
        // What many logouts needed is given back once most of their tokens have ended.
        let (kept, room) = (keys.revoked.len(), keys.revoked.capacity());
        if room > SMALL.max(4 * kept) {
            keys.revoked.shrink_to(2 * kept);
        }
        for (_, control) in keys.watched.iter().filter(|(jti, _)| *jti == token.jti) {
            control.end(End::Session);
        }
        keys.revoked.insert(token.jti.clone(), token);
        Ok(())
    }

    /// Has a stream end when its session is ended: by a logout, or by other credentials. That the token ends by itself is
    /// left to the stream, see [`Watch::end`]. `None` if it has ended already.
    pub fn watch(self: &Arc<Self>, session: &Session, control: &Arc<Control>) -> Option<Watch> {
        let claims = &session.claims;
        let now = present();
        // Looked at and added under one lock: whatever ends the session finds the stream, or is found here.
        let mut keys = self.keys();
        let has_ended = keys.credentials != session.credentials
            || keys.revoked.contains_key(&claims.jti)
            || claims.end(&now) <= now.boot;
        if has_ended {
            return None;
        }
        keys.watched.push((claims.jti.clone(), Arc::clone(control)));
        Some(Watch {
            sessions: Arc::clone(self),
            claims: claims.clone(),
            control: Arc::clone(control),
        })
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        // Each change is one assignment, so that what a panic left behind is whole.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn present() -> Moment<'static> {
    Moment {
        boot: BootTime::now(),
        wall: Timestamp::now(),
        boot_id: clock::boot_id(),
    }
}

fn random_id() -> Result<u128, ApiError> {
    random::bytes()
        .map(u128::from_ne_bytes)
        .map_err(|error| ApiError::Internal(Cause::Random(error)))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    const OLD: Credentials = [1; 32];

    /// Sessions on a store of their own, and a session that is good for `lifetime`.
    pub fn logged_in(lifetime: Duration) -> (Arc<Sessions>, Session, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path()).unwrap());
        let sessions = Arc::new(Sessions::open(store, OLD).unwrap());
        let (_, claims) = sessions.begin("admin", &OLD, lifetime).unwrap();
        let session = Session {
            claims,
            credentials: OLD,
        };
        (sessions, session, dir)
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn no_two_tokens_have_the_same_id() {
        assert_ne!(random_id().unwrap(), random_id().unwrap());
    }

    #[test]
    fn many_logouts_keep_no_memory_once_their_tokens_have_ended() {
        let (sessions, session, _dir) = logged_in(DAY);
        let ended = (0..10_000).map(|number: u32| {
            let token = Revoked {
                jti: number.to_string(),
                exp: 0,
                boot_id: clock::boot_id().to_owned(),
                boot_end: BootTime::default(),
            };
            (token.jti.clone(), token)
        });
        sessions.keys().revoked.extend(ended);
        sessions.end(&session.claims).unwrap();
        let room = sessions.keys().revoked.capacity();
        assert!(room <= SMALL, "room for {room} tokens is kept");
        assert_eq!(sessions.keys().revoked.len(), 1);
    }

    #[test]
    fn a_logout_ends_the_streams_of_that_token_and_no_others() {
        let (sessions, session, _dir) = logged_in(DAY);
        let (_, other) = sessions.begin("admin", &OLD, DAY).unwrap();
        let other = Session {
            claims: other,
            credentials: OLD,
        };
        let controls = [Arc::default(), Arc::default(), Arc::default()];
        let watches = [
            sessions.watch(&session, &controls[0]),
            sessions.watch(&session, &controls[1]),
            sessions.watch(&other, &controls[2]),
        ];
        assert!(watches.iter().all(Option::is_some));
        sessions.end(&session.claims).unwrap();
        let ended = controls.map(|control| control.ended());
        assert_eq!(ended, [Some(End::Session), Some(End::Session), None]);
        assert!(sessions.watch(&session, &Arc::default()).is_none());
    }

    #[test]
    fn other_credentials_end_all_streams() {
        let (sessions, session, _dir) = logged_in(DAY);
        let control = Arc::default();
        let _watch = sessions.watch(&session, &control).unwrap();
        sessions.set_credentials(OLD).unwrap();
        assert_eq!(control.ended(), None);
        sessions.set_credentials([2; 32]).unwrap();
        assert_eq!(control.ended(), Some(End::Session));
        assert!(sessions.watch(&session, &Arc::default()).is_none());
    }

    #[test]
    fn what_is_not_watched_any_more_is_forgotten() {
        let (sessions, session, _dir) = logged_in(DAY);
        let control = Arc::default();
        let twice = [(); 2].map(|()| sessions.watch(&session, &control).unwrap());
        let [first, second] = twice;
        drop(first);
        assert_eq!(sessions.keys().watched.len(), 1);
        drop(second);
        assert!(sessions.keys().watched.is_empty());
        sessions.end(&session.claims).unwrap();
        assert_eq!(control.ended(), None);
    }

    #[test]
    fn a_token_that_has_ended_is_not_watched() {
        let (sessions, session, _dir) = logged_in(Duration::ZERO);
        assert!(sessions.watch(&session, &Arc::default()).is_none());
        assert!(sessions.keys().watched.is_empty());
    }
}
