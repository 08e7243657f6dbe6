//! Tokens: HS256, signed and checked. Pure: times and secrets come in; who is logged in is `sessions`' affair.
//!
//! In the boot that made a token only the boot clock decides when it ends, so that setting the wall clock neither ends
//! nor prolongs it. After a reboot nothing but the wall clock is left to ask.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, new_error};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Extras, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::clock::{BootTime, Timestamp};

/// What signs tokens.
pub type Secret = [u8; 32];

/// What a token says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// The user name.
    pub sub: String,
    /// `admin`, the only one.
    pub role: String,
    /// Issued at, in seconds since 1970.
    pub iat: i64,
    /// End by the wall clock, in seconds since 1970.
    pub exp: i64,
    /// The token's id: 128 random bits in hex.
    pub jti: String,
    /// The boot that made it.
    pub bid: String,
    /// End in that boot, in seconds since boot, to the microsecond.
    pub bexp: f64,
}

/// The present moment by every clock that tokens are measured with.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    pub boot: BootTime,
    pub wall: Timestamp,
    pub boot_id: &'a str,
}

impl Claims {
    /// Claims that are good from `now` on for `lifetime`. `id` is random.
    pub fn new(subject: &str, id: u128, lifetime: Duration, now: &Moment) -> Claims {
        let iat = now.wall.as_secs();
        Claims {
            sub: subject.to_owned(),
            role: "admin".to_owned(),
            iat,
            exp: iat.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX)),
            jti: format!("{id:032x}"),
            bid: now.boot_id.to_owned(),
            bexp: (now.boot + lifetime).as_micros() as f64 / 1e6,
        }
    }

    /// The end by the boot clock, in the boot `bid`.
    pub fn boot_end(&self) -> BootTime {
        BootTime::from_micros((self.bexp * 1e6).round() as u64)
    }

    /// The end by the wall clock, to be shown.
    pub fn expires_at(&self) -> String {
        Timestamp::from_micros(self.exp.saturating_mul(1_000_000)).to_seconds_string()
    }

    /// The id as a number.
    pub fn id(&self) -> Option<u128> {
        u128::from_str_radix(&self.jti, 16).ok()
    }

    /// When it ends by the boot clock, as far as that can be said now: in its own boot nothing changes that, later the wall
    /// clock may be set. What has ended has done so by `now`.
    pub fn end(&self, now: &Moment) -> BootTime {
        if self.bid == now.boot_id {
            return self.boot_end();
        }
        if !self.holds(now) {
            return now.boot;
        }
        let left = i128::from(self.exp) * 1_000_000 - i128::from(now.wall.as_micros());
        now.boot + Duration::from_micros(u64::try_from(left).unwrap_or(0))
    }

    fn holds(&self, now: &Moment) -> bool {
        if self.bid == now.boot_id {
            now.boot < self.boot_end()
        } else {
            let wall = now.wall.as_secs();
            self.iat <= wall && wall < self.exp
        }
    }
}

/// The encoded [`header`]. Whatever begins otherwise (`alg` none, other algorithms, further members) is not ours, and is
/// refused before anything in it is parsed.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.";

/// `{"alg":"HS256","typ":"JWT"}`, in the order of the reference: jsonwebtoken itself would write `typ` first.
fn header() -> Header {
    let mut extras = Extras::default();
    extras.insert("typ", "JWT");
    let mut header = Header::new(Algorithm::HS256);
    header.typ = None;
    header.extras = extras;
    header
}

/// The token that says `claims`.
///
/// # Errors
/// None that is known: the library's signature allows for some.
pub fn sign(claims: &Claims, secret: &Secret) -> Result<String, Error> {
    install();
    jsonwebtoken::encode(&header(), claims, &EncodingKey::from_secret(secret))
}

/// What `token` says, if it is signed with `secret` and has not ended.
pub fn verify(token: &str, secret: &Secret, now: &Moment) -> Option<Claims> {
    if !token.starts_with(HEADER) {
        return None;
    }
    install();
    let mut validation = Validation::new(Algorithm::HS256);
    // Which clock decides is our own rule, see `Claims::holds`; the claims themselves are required by their types.
    validation.validate_exp = false;
    validation.required_spec_claims.clear();
    jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_secret(secret), &validation)
        .ok()
        .map(|token| token.claims)
        .filter(|claims| claims.holds(now))
}

/// The only cryptography that the crate gets: its own backends bring 66 crates and an open advisory on RSA.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| {
        Ok(Box::new(Hs256::new(*algorithm, key.as_bytes())?) as Box<dyn JwtSigner>)
    },
    verifier_factory: |algorithm, key| {
        Ok(Box::new(Hs256::new(*algorithm, key.try_get_as_bytes()?)?) as Box<dyn JwtVerifier>)
    },
    key_utils: KeyUtils::new_unimplemented(),
};

fn install() {
    // Fails when it is installed already, which is as good.
    let _ = PROVIDER.install_default();
}

/// HMAC with SHA-256. Source: RFC 7518 3.2.
struct Hs256(Hmac<Sha256>);

impl Hs256 {
    fn new(algorithm: Algorithm, key: &[u8]) -> Result<Hs256, Error> {
        if algorithm != Algorithm::HS256 {
            return Err(new_error(ErrorKind::InvalidAlgorithm));
        }
        Hmac::new_from_slice(key)
            .map(Hs256)
            .map_err(|_| new_error(ErrorKind::InvalidKeyFormat))
    }
}

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        let mac = self.0.clone().chain_update(message);
        Ok(mac.finalize().into_bytes().to_vec())
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let mac = self.0.clone().chain_update(message);
        // In constant time.
        mac.verify_slice(signature)
            .map_err(|_| signature::Error::new())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: Secret = [7; 32];
    const DAY: Duration = Duration::from_secs(86_400);

    /// `boot` and `wall` in seconds.
    fn moment(boot: u64, wall: i64, boot_id: &str) -> Moment<'_> {
        Moment {
            boot: BootTime::from_micros(boot * 1_000_000),
            wall: Timestamp::from_micros(wall * 1_000_000),
            boot_id,
        }
    }

    const WALL: i64 = 1_735_689_600;

    fn token() -> String {
        let claims = Claims::new("admin", 5, DAY, &moment(100, WALL, "boot-1"));
        sign(&claims, &SECRET).unwrap()
    }

    fn holds(boot: u64, wall: i64, boot_id: &str) -> bool {
        verify(&token(), &SECRET, &moment(boot, wall, boot_id)).is_some()
    }

    #[test]
    fn a_token_says_what_it_was_made_with() {
        let claims = verify(&token(), &SECRET, &moment(100, WALL, "boot-1")).unwrap();
        assert_eq!(
            (claims.sub.as_str(), claims.role.as_str()),
            ("admin", "admin")
        );
        assert_eq!((claims.iat, claims.exp), (WALL, WALL + 86_400));
        assert_eq!(claims.jti, "00000000000000000000000000000005");
        assert_eq!(claims.id(), Some(5));
        assert_eq!(claims.expires_at(), "2025-01-02T00:00:00Z");
        assert_eq!(claims.boot_end(), BootTime::from_micros(86_500_000_000));
    }

    #[test]
    fn it_begins_as_in_the_reference() {
        assert!(token().starts_with(HEADER));
    }

    #[test]
    fn in_its_own_boot_only_the_boot_clock_decides() {
        assert!(holds(86_499, WALL, "boot-1"));
        assert!(!holds(86_500, WALL, "boot-1"));
        assert!(holds(101, WALL + 315_360_000, "boot-1"));
        assert!(holds(101, 0, "boot-1"));
    }

    #[test]
    fn its_end_is_told_by_the_boot_clock() {
        let claims = Claims::new("admin", 5, DAY, &moment(100, WALL, "boot-1"));
        let end = |boot, wall, boot_id| claims.end(&moment(boot, wall, boot_id)).as_micros();
        for wall in [WALL, WALL + 315_360_000, 0] {
            assert_eq!(end(200, wall, "boot-1"), 86_500_000_000);
        }
        assert_eq!(end(7, WALL + 400, "boot-2"), 86_007_000_000);
        assert_eq!(end(7, WALL + 300, "boot-2"), 86_107_000_000);
        for wall in [WALL + 86_400, WALL - 1] {
            assert_eq!(end(7, wall, "boot-2"), 7_000_000, "it has ended");
        }
    }

    #[test]
    fn after_a_reboot_the_wall_clock_decides() {
        assert!(holds(1, WALL, "boot-2"));
        assert!(holds(1_000_000, WALL + 86_399, "boot-2"));
        assert!(!holds(1, WALL + 86_400, "boot-2"));
        assert!(!holds(1, WALL - 1, "boot-2"), "issued in the future");
        assert!(!holds(1, 0, "boot-2"));
    }

    fn refused(token: &str) -> bool {
        verify(token, &SECRET, &moment(101, WALL, "boot-1")).is_none()
    }

    #[test]
    fn another_key_is_refused() {
        let claims = Claims::new("admin", 5, DAY, &moment(100, WALL, "boot-1"));
        assert!(refused(&sign(&claims, &[8; 32]).unwrap()));
        assert!(refused(&sign(&claims, &[0; 32]).unwrap()));
    }

    #[test]
    fn other_algorithms_are_refused_even_with_a_good_signature() {
        let good = token();
        let payload = good.split('.').nth(1).unwrap();
        let key = EncodingKey::from_secret(&SECRET);
        // {"alg":"none"}, {"alg":"None","typ":"JWT"}, {"alg":"HS512","typ":"JWT"}, {"typ":"JWT","alg":"HS256"}
        for header in [
            "eyJhbGciOiJub25lIn0",
            "eyJhbGciOiJOb25lIiwidHlwIjoiSldUIn0",
            "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9",
            "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9",
        ] {
            let message = format!("{header}.{payload}");
            let signature =
                jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
            assert!(refused(&format!("{message}.{signature}")), "{header}");
            assert!(refused(&format!("{message}.")), "{header}");
            assert!(refused(&message), "{header}");
        }
        assert!(Hs256::new(Algorithm::HS512, &SECRET).is_err());
    }

    #[test]
    fn a_changed_or_broken_token_is_refused() {
        let good = token();
        let parts: Vec<&str> = good.split('.').collect();
        for bad in [
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            HEADER.to_owned(),
            format!("{}.{}", parts[0], parts[1]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{good}."),
            format!("{good}="),
            format!(" {good}"),
            format!("{good}.{}", parts[2]),
            format!("{}..{}", parts[0], parts[2]),
            format!("{}.!.{}", parts[0], parts[2]),
            format!("{}.{}.{}", parts[0], parts[2], parts[2]),
        ] {
            assert!(refused(&bad), "{bad}");
        }
        assert!(!refused(&good));
    }

    #[test]
    fn every_claim_is_required() {
        let full = serde_json::json!({"sub": "admin", "role": "admin", "iat": WALL, "exp": WALL + 60,
            "jti": "1", "bid": "boot-1", "bexp": 9999.0});
        let signed = |claims: &serde_json::Value| {
            install();
            jsonwebtoken::encode(&header(), claims, &EncodingKey::from_secret(&SECRET)).unwrap()
        };
        assert!(!refused(&signed(&full)));
        for name in full.as_object().unwrap().keys() {
            let mut less = full.clone();
            less.as_object_mut().unwrap().remove(name);
            assert!(refused(&signed(&less)), "{name}");
            let mut wrong = full.clone();
            wrong[name] = serde_json::json!([]);
            assert!(refused(&signed(&wrong)), "{name}");
        }
    }

    #[test]
    fn a_clock_before_1970_makes_good_tokens() {
        let early = moment(5, -3600, "boot-1");
        let claims = Claims::new("admin", 5, Duration::from_secs(60), &early);
        let token = sign(&claims, &SECRET).unwrap();
        assert_eq!(verify(&token, &SECRET, &early), Some(claims));
    }

    proptest! {
        #[test]
        fn one_changed_byte_is_noticed(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let good = token();
            let mut bytes = good.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte & 0x7f;
            let changed = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(refused(&changed), changed != good);
        }

        #[test]
        fn no_text_panics(rest in any::<String>()) {
            let token = format!("{HEADER}{rest}");
            prop_assert!(refused(&token));
        }
    }
}
