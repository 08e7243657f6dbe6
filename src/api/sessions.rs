//! Who is logged in: the secret that signs tokens, and the tokens that were logged out, as the store keeps them and in
//! memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::{ApiError, Cause};
use super::token::{self, Claims, Moment, Secret};
use crate::clock::{self, BootTime, Timestamp};
use crate::report;
use crate::store::{self, Revoked, Store};
use crate::sys::random;

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
        let token = token::sign(&claims, &secret)
            .map_err(|error| ApiError::Internal(Cause::Sign(error)))?;
        Ok((token, claims))
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
        keys.revoked.insert(token.jti.clone(), token);
        Ok(())
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
mod tests {
    use super::*;

    #[test]
    fn no_two_tokens_have_the_same_id() {
        assert_ne!(random_id().unwrap(), random_id().unwrap());
    }
}
