//! `/api/auth`: login, refresh, logout.

use std::sync::Arc;

use serde::Serialize;

use super::body::Fields;
use super::error::{ApiError, Cause};
use super::sessions::{Session, Sessions};
use super::token::Claims;
use super::{Api, Call, Message, Outcome, Settings, password, reply};
use crate::http::Reply;

#[derive(Serialize)]
struct LoginShape<'a> {
    token: &'a str,
    expires_at: String,
    user: UserShape<'a>,
}

#[derive(Serialize)]
struct UserShape<'a> {
    username: &'a str,
    role: &'a str,
}

#[derive(Serialize)]
struct TokenShape<'a> {
    token: &'a str,
    expires_at: String,
}

/// `POST /auth/login`: a token for user name and password, checked on a lane of its own, one at a time; 429 where many wait.
pub fn login(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    let mut fields = Fields::parse(&call.body, &["username", "password"])?;
    let username = fields.required("username", "Username")?;
    let password = fields.required("password", "Password")?;
    let settings = api.settings();
    let sessions = Arc::clone(&api.sessions);
    // Whoever floods it is to slow down; it is not our fault, and nothing to fill the daemon's log with.
    let full = ApiError::RateLimited { retry_after: 1 };
    Ok(Outcome::on_lane(&api.passwords, full, move || {
        check_login(&settings, &sessions, &username, &password)
    }))
}

fn check_login(
    settings: &Settings,
    sessions: &Sessions,
    username: &str,
    password: &str,
) -> Result<Reply, ApiError> {
    let good = password::check(settings, username, password)
        .map_err(|error| ApiError::Internal(Cause::Hash(error)))?;
    if !good {
        return Err(ApiError::InvalidCredentials);
    }
    let credentials = password::credentials(settings);
    let (token, claims) = sessions.begin(username, &credentials, settings.token_lifetime)?;
    Ok(logged_in(&token, &claims))
}

fn logged_in(token: &str, claims: &Claims) -> Reply {
    let shape = LoginShape {
        token,
        expires_at: claims.expires_at(),
        user: UserShape {
            username: &claims.sub,
            role: &claims.role,
        },
    };
    reply::json(200, &shape)
}

/// `POST /auth/refresh`: a further token; the old one stays good.
pub fn refresh(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    let Session {
        claims,
        credentials,
    } = call.session.ok_or(ApiError::Unauthenticated)?;
    let lifetime = api.settings().token_lifetime;
    let (token, claims) = api
        .sessions
        .begin(&claims.sub, &credentials, lifetime)
        .map_err(|error| match error {
            // The credentials changed since the gate.
            ApiError::InvalidCredentials => ApiError::InvalidToken,
            other => other,
        })?;
    let shape = TokenShape {
        token: &token,
        expires_at: claims.expires_at(),
    };
    Ok(reply::json(200, &shape).into())
}

/// `POST /auth/logout`: ends the token that was sent.
pub fn logout(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    let session = call.session.ok_or(ApiError::Unauthenticated)?;
    api.sessions.end(&session.claims)?;
    let message = "Logged out successfully";
    Ok(reply::json(200, &Message { message }).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::reply::body_text;
    use crate::api::token::Moment;
    use crate::clock::{BootTime, Timestamp};
    use std::time::Duration;

    #[test]
    fn a_login_is_answered_as_in_the_reference() {
        let now = Moment {
            boot: BootTime::default(),
            wall: Timestamp::from_micros(1_735_689_600_000_000),
            boot_id: "boot",
        };
        let claims = Claims::new("admin", 1, Duration::from_secs(43_200), &now);
        assert_eq!(
            body_text(&logged_in("a.b.c", &claims)),
            r#"{"token":"a.b.c","expires_at":"2025-01-01T12:00:00Z","user":{"username":"admin","role":"admin"}}"#
        );
    }
}
