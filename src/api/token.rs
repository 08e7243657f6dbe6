//! Tokens: HS256, signed and checked. Pure: times and secrets come in; who is logged in is `sessions`' affair.
//!
//! In the boot that made a token only the boot clock decides when it ends, so that setting the wall clock neither ends
//! nor prolongs it. After a reboot nothing but the wall clock is left to ask.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
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

/// The encoded `{"alg":"HS256","typ":"JWT"}`, with its dot. Whatever begins otherwise (`alg` none, other algorithms, further
/// members) is not ours, and is refused before anything in it is parsed.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.";

/// The token that says `claims`. Source: RFC 7515 3.1.
pub fn sign(claims: &Claims, secret: &Secret) -> String {
    let claims = serde_json::to_vec(claims).expect("text and numbers are JSON");
    let mut token = HEADER.to_owned();
    URL_SAFE_NO_PAD.encode_string(claims, &mut token);
    let signature = mac(secret, &token).finalize().into_bytes();
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}

/// What `token` says, if it is signed with `secret` and has not ended.
pub fn verify(token: &str, secret: &Secret, now: &Moment) -> Option<Claims> {
    let (signed, signature) = token.rsplit_once('.')?;
    let claims = signed.strip_prefix(HEADER)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    // In constant time.
    mac(secret, signed).verify_slice(&signature).ok()?;
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice(&claims)
        .ok()
        .filter(|claims: &Claims| claims.holds(now))
}

/// HMAC with SHA-256. Source: RFC 7518 3.2.
fn mac(secret: &[u8], signed: &str) -> Hmac<Sha256> {
    let mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.chain_update(signed)
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
        sign(&claims, &SECRET)
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

    /// What begins so, with a good signature.
    fn signed(message: &str) -> String {
        let signature = mac(&SECRET, message).finalize().into_bytes();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The example that jwt.io shows.
    #[test]
    fn a_known_token_has_the_signature_that_is_known() {
        let claims = r#"{"sub":"1234567890","name":"John Doe","iat":1516239022}"#;
        let signed = HEADER.to_owned() + &URL_SAFE_NO_PAD.encode(claims);
        let signature = mac(b"your-256-bit-secret", &signed).finalize().into_bytes();
        assert_eq!(
            URL_SAFE_NO_PAD.encode(signature),
            "SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
        );
    }

    fn refused(token: &str) -> bool {
        verify(token, &SECRET, &moment(101, WALL, "boot-1")).is_none()
    }

    #[test]
    fn another_key_is_refused() {
        let claims = Claims::new("admin", 5, DAY, &moment(100, WALL, "boot-1"));
        assert!(refused(&sign(&claims, &[8; 32])));
        assert!(refused(&sign(&claims, &[0; 32])));
    }

    #[test]
    fn other_algorithms_are_refused_even_with_a_good_signature() {
        let good = token();
        let payload = good.split('.').nth(1).unwrap();
        // {"alg":"none"}, {"alg":"None","typ":"JWT"}, {"alg":"HS512","typ":"JWT"}, {"typ":"JWT","alg":"HS256"}
        for header in [
            "eyJhbGciOiJub25lIn0",
            "eyJhbGciOiJOb25lIiwidHlwIjoiSldUIn0",
            "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9",
            "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9",
        ] {
            let message = format!("{header}.{payload}");
            assert!(refused(&signed(&message)), "{header}");
            assert!(refused(&format!("{message}.")), "{header}");
            assert!(refused(&message), "{header}");
        }
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
            signed(&(HEADER.to_owned() + &URL_SAFE_NO_PAD.encode(claims.to_string())))
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
        let token = sign(&claims, &SECRET);
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
