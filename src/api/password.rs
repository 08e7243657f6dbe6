//! Checking user name and password, in the same time whether or not the user exists.

use bcrypt::BcryptError;
use sha2::{Digest, Sha256};

use super::sessions::Credentials;
use super::{Password, Settings};

/// Whether this is the user and the password. Takes long with bcrypt: call it off the serving threads.
///
/// # Errors
/// The configured hash is not one.
pub fn check(settings: &Settings, username: &str, password: &str) -> Result<bool, BcryptError> {
    let user = same(username, &settings.username);
    let password = match &settings.password {
        Password::Plain(known) => same(password, known),
        // What is beyond 72 bytes is not looked at, as with htpasswd, which made the hash.
        Password::Bcrypt(hash) => bcrypt::verify(password, hash)?,
    };
    Ok(user & password)
}

/// A digest of what a login must show.
pub fn credentials(settings: &Settings) -> Credentials {
    let (kind, secret) = match &settings.password {
        Password::Plain(password) => ("plain", password),
        Password::Bcrypt(hash) => ("bcrypt", hash),
    };
    let mut digest = Sha256::new();
    for part in [settings.username.as_str(), kind, secret] {
        // With its length, so that no two triples look alike.
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// Compares digests, so that how far a guess is right cannot be measured.
pub fn same(given: &str, known: &str) -> bool {
    Sha256::digest(given) == Sha256::digest(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    fn settings(password: Password) -> Settings {
        Settings {
            hosts: Vec::new(),
            username: "admin".to_owned(),
            password,
            token_lifetime: Duration::from_secs(60),
            rate_limit: 0,
            rate_limit_window: Duration::from_secs(60),
            cors_origins: Vec::new(),
            max_body: 65_536,
            socket_group: None,
            metrics_token: Default::default(),
            dashboard: true,
        }
    }

    fn hashed(password: &str) -> Settings {
        let hash = bcrypt::hash_with_salt(password, 4, [1; 16]).unwrap();
        settings(Password::Bcrypt(hash.to_string()))
    }

    #[test]
    fn user_and_password_must_both_be_right() {
        let plain = settings(Password::Plain("password".to_owned()));
        for settings in [plain, hashed("password")] {
            assert!(check(&settings, "admin", "password").unwrap());
            for (user, password) in [
                ("admin", "Password"),
                ("admin", ""),
                ("admin", "password "),
                ("Admin", "password"),
                ("", "password"),
                ("", ""),
            ] {
                assert!(
                    !check(&settings, user, password).unwrap(),
                    "{user} {password}"
                );
            }
        }
    }

    #[test]
    fn htpasswd_s_hashes_are_understood() {
        // `htpasswd -nbB -C 4 admin secret`, whose hashes begin with $2y$.
        let hash = bcrypt::hash_with_salt("secret", 4, [2; 16]).unwrap();
        let hash = hash.format_for_version(bcrypt::Version::TwoY);
        assert!(check(&settings(Password::Bcrypt(hash)), "admin", "secret").unwrap());
    }

    #[test]
    fn long_passwords_and_nul_are_only_wrong() {
        let settings = hashed("password");
        assert!(!check(&settings, "admin", &"x".repeat(60_000)).unwrap());
        assert!(!check(&settings, "admin", "pass\0word").unwrap());
        let long = "x".repeat(80);
        assert!(check(&hashed(&long), "admin", &long).unwrap());
    }

    #[test]
    fn a_hash_that_is_none_is_an_error() {
        let settings = settings(Password::Bcrypt("$2b$é".to_owned()));
        assert!(check(&settings, "admin", "password").is_err());
    }

    #[test]
    fn bcrypt_fits_a_small_stack() {
        let check = || check(&hashed("password"), "admin", "password").unwrap();
        let thread = thread::Builder::new().stack_size(64 * 1024).spawn(check);
        assert!(thread.unwrap().join().unwrap());
    }

    #[test]
    fn any_change_of_the_credentials_shows() {
        let plain = |user: &str, password: &str| {
            let mut settings = settings(Password::Plain(password.to_owned()));
            settings.username = user.to_owned();
            credentials(&settings)
        };
        assert_eq!(plain("a", "b"), plain("a", "b"));
        assert_ne!(plain("a", "b"), plain("a", "c"));
        assert_ne!(plain("a", "b"), plain("c", "b"));
        assert_ne!(plain("ab", "c"), plain("a", "bc"));
        let hash = settings(Password::Bcrypt("b".to_owned()));
        let same = settings(Password::Plain("b".to_owned()));
        assert_ne!(credentials(&hash), credentials(&same));
    }
}
