//! Building answers: JSON with its status.

use serde::Serialize;

use crate::http::{Body, Reply};

/// Room for most answers, the list of ten programs among them: to grow to that step by step takes longer.
const USUAL_BYTES: usize = 4096;

/// An answer with a JSON body.
pub fn json<T: Serialize>(status: u16, value: &T) -> Reply {
    // Our wire structs have string keys and no Serialize code that refuses, and a Vec takes every byte.
    let mut body = Vec::with_capacity(USUAL_BYTES);
    serde_json::to_writer(&mut body, value).expect("wire structs always serialize");
    Reply {
        status,
        headers: vec![("Content-Type", "application/json".to_owned())],
        body: Body::Bytes(body),
    }
}

/// 204, with headers.
pub fn empty(headers: Vec<(&'static str, String)>) -> Reply {
    Reply {
        status: 204,
        headers,
        body: Body::Bytes(Vec::new()),
    }
}

/// The body of a reply that has one in memory.
#[cfg(test)]
pub fn body_text(reply: &Reply) -> String {
    match &reply.body {
        Body::Bytes(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        Body::Source(_) | Body::Feed(_) | Body::WebSocket(_) => {
            panic!("a body in memory was expected")
        }
    }
}
