//! The rate limit: a fixed window a client, beginning with its first request.
//!
//! Bounded, whatever comes: of more clients than it can hold at a time it forgets those whose windows began first.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::{BootTime, Timestamp};

/// Clients that are remembered at a time.
const CAPACITY: usize = 4096;
/// Room for so many is kept, whoever has gone.
const SMALL: usize = 64;

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    Address(IpAddr),
    /// The id of a valid token.
    Token(u128),
    /// A user at the Unix socket who is not trusted.
    User(u32),
}

/// Requests a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub requests: u32,
    pub window: Duration,
}

/// What a client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    pub limit: u32,
    pub remaining: u32,
    /// Until the window ends.
    pub reset_in: Duration,
    /// This request is one too many.
    pub exceeded: bool,
}

impl Allowance {
    /// The three headers of the reference; the time of reset is in Unix seconds.
    pub fn headers(&self, now: Timestamp) -> [(&'static str, String); 3] {
        let reset = (now + self.reset_in + ALMOST_A_SECOND).as_secs();
        [
            ("X-RateLimit-Limit", self.limit.to_string()),
            ("X-RateLimit-Remaining", self.remaining.to_string()),
            ("X-RateLimit-Reset", reset.to_string()),
        ]
    }

    /// Whole seconds to wait for the next window, at least one.
    pub fn retry_after(&self) -> u64 {
        (self.reset_in + ALMOST_A_SECOND).as_secs().max(1)
    }
}

/// Added before cutting off to seconds, rounds up: who waits as long as told is not too early.
const ALMOST_A_SECOND: Duration = Duration::from_micros(999_999);

/// The windows that are open now.
#[derive(Default)]
pub struct RateLimiter {
    windows: HashMap<Key, Window>,
    /// The same keys, in order of their windows' begin and so, as all are of one length, of their end.
    order: VecDeque<Key>,
}

struct Window {
    begin: BootTime,
    requests: u32,
}

impl RateLimiter {
    /// Counts a request.
    pub fn count(&mut self, key: Key, limit: Limit, now: BootTime) -> Allowance {
        self.forget_ended(limit, now);
        if !self.windows.contains_key(&key) {
            if self.order.len() >= CAPACITY {
                self.forget_first();
            }
            self.order.push_back(key);
        }
        let window = self.windows.entry(key).or_insert(Window {
            begin: now,
            requests: 0,
        });
        window.requests = window.requests.saturating_add(1);
        window.allowance(limit, now)
    }

    /// What the client has left, without counting.
    pub fn peek(&mut self, key: Key, limit: Limit, now: BootTime) -> Allowance {
        self.forget_ended(limit, now);
        let fresh = Window {
            begin: now,
            requests: 0,
        };
        self.windows
            .get(&key)
            .unwrap_or(&fresh)
            .allowance(limit, now)
    }

    fn forget_ended(&mut self, limit: Limit, now: BootTime) {
        while let Some(window) = self.order.front().and_then(|key| self.windows.get(key)) {
            if now < window.begin + limit.window {
                break;
            }
            self.forget_first();
        }
        // What a crowd needed is given back once most of it has gone.
        let (open, room) = (self.windows.len(), self.windows.capacity());
        if room > SMALL.max(4 * open) {
            self.windows.shrink_to(2 * open);
            self.order.shrink_to(2 * open);
        }
    }

    fn forget_first(&mut self) {
        if let Some(key) = self.order.pop_front() {
            self.windows.remove(&key);
        }
    }
}

impl Window {
    fn allowance(&self, limit: Limit, now: BootTime) -> Allowance {
        Allowance {
            limit: limit.requests,
            remaining: limit.requests.saturating_sub(self.requests),
            reset_in: (self.begin + limit.window).since(now),
            exceeded: self.requests > limit.requests,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit {
        requests: 2,
        window: Duration::from_secs(60),
    };

    fn at(seconds: u64) -> BootTime {
        BootTime::from_micros(seconds * 1_000_000)
    }

    fn client(last: u8) -> Key {
        Key::Address([10, 0, 0, last].into())
    }

    #[test]
    fn the_window_begins_with_the_first_request_and_is_fixed() {
        let mut limiter = RateLimiter::default();
        let first = limiter.count(client(1), LIMIT, at(100));
        assert_eq!((first.remaining, first.exceeded), (1, false));
        assert_eq!(first.reset_in, Duration::from_secs(60));
        let second = limiter.count(client(1), LIMIT, at(130));
        assert_eq!((second.remaining, second.exceeded), (0, false));
        assert_eq!(second.reset_in, Duration::from_secs(30));
        let third = limiter.count(client(1), LIMIT, at(159));
        assert_eq!((third.remaining, third.exceeded), (0, true));
        assert_eq!(third.retry_after(), 1);
        let next = limiter.count(client(1), LIMIT, at(160));
        assert_eq!((next.remaining, next.exceeded), (1, false));
    }

    #[test]
    fn clients_are_counted_apart() {
        let mut limiter = RateLimiter::default();
        for _ in 0..3 {
            limiter.count(client(1), LIMIT, at(0));
        }
        assert!(!limiter.count(client(2), LIMIT, at(0)).exceeded);
        assert!(!limiter.count(Key::Token(1), LIMIT, at(0)).exceeded);
    }

    #[test]
    fn a_look_does_not_count() {
        let mut limiter = RateLimiter::default();
        for _ in 0..9 {
            let allowance = limiter.peek(client(1), LIMIT, at(0));
            assert_eq!((allowance.remaining, allowance.exceeded), (2, false));
        }
        assert!(limiter.windows.is_empty());
    }

    #[test]
    fn a_client_with_many_addresses_cannot_fill_the_memory() {
        let mut limiter = RateLimiter::default();
        for number in 0..100_000u32 {
            let address = std::net::Ipv4Addr::from_bits(number).into();
            limiter.count(Key::Address(address), LIMIT, at(1));
        }
        assert_eq!(limiter.windows.len(), CAPACITY);
        assert_eq!(limiter.order.len(), CAPACITY);
        limiter.peek(client(1), LIMIT, at(61));
        assert_eq!((limiter.windows.len(), limiter.order.len()), (0, 0));
        let room = limiter.windows.capacity().max(limiter.order.capacity());
        assert!(room <= SMALL, "room for {room} clients is kept");
    }

    #[test]
    fn a_changed_limit_holds_at_once() {
        let mut limiter = RateLimiter::default();
        limiter.count(client(1), LIMIT, at(0));
        let shorter = Limit {
            requests: 1,
            window: Duration::from_secs(10),
        };
        assert!(limiter.count(client(1), shorter, at(5)).exceeded);
        assert!(!limiter.count(client(1), shorter, at(10)).exceeded);
    }

    #[test]
    fn the_reset_is_in_unix_seconds_rounded_up() {
        let allowance = Allowance {
            limit: 100,
            remaining: 99,
            reset_in: Duration::from_millis(59_500),
            exceeded: false,
        };
        let now = Timestamp::from_micros(1_000_000_000);
        assert_eq!(
            allowance.headers(now),
            [
                ("X-RateLimit-Limit", "100".to_owned()),
                ("X-RateLimit-Remaining", "99".to_owned()),
                ("X-RateLimit-Reset", "1060".to_owned()),
            ]
        );
        assert_eq!(allowance.retry_after(), 60);
    }
}
