//! A [`Service`] as connections call it: without its type, and without its panics.
//!
//! A connection keeps what the gates found out until the body is there. As a closure ([`Then`]) it does so without knowing
//! the type, and nothing else in this room needs to be generic. Called by `connection.rs`, `answer.rs`, `listener.rs`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Body, Head, Peer, Problem, Reply, Request, Responder, Service, Verdict};

/// Serves a request that passed the gates.
pub type Then = Box<dyn FnOnce(Request, Responder) + Send>;

/// The service behind the wire. A panic in any of these is a 500; the hook has said what it was.
pub trait Behind: Send + Sync {
    fn gate(&self, head: &Head) -> Verdict<Then>;
    fn headers(&self, head: &Head) -> Vec<(&'static str, String)>;
    fn problem(&self, problem: Problem, peer: &Peer) -> Reply;
    fn answered(&self, status: u16);
    fn broken(&self) -> Reply;
}

pub struct Erased<S>(pub Arc<S>);

impl<S: Service> Behind for Erased<S> {
    fn gate(&self, head: &Head) -> Verdict<Then> {
        match catch_unwind(AssertUnwindSafe(|| self.0.gate(head))) {
            Ok(Verdict { headers, outcome }) => Verdict {
                headers,
                outcome: outcome.map(|pass| {
                    let service = Arc::clone(&self.0);
                    let then: Then =
                        Box::new(move |request, responder| service.serve(pass, request, responder));
                    then
                }),
            },
            Err(_) => Verdict {
                headers: Vec::new(),
                outcome: Err(self.broken()),
            },
        }
    }

    fn headers(&self, head: &Head) -> Vec<(&'static str, String)> {
        catch_unwind(AssertUnwindSafe(|| self.0.headers(head))).unwrap_or_default()
    }

    fn problem(&self, problem: Problem, peer: &Peer) -> Reply {
        catch_unwind(AssertUnwindSafe(|| self.0.problem(problem, peer)))
            .unwrap_or_else(|_| self.broken())
    }

    fn answered(&self, status: u16) {
        self.0.answered(status);
    }

    fn broken(&self) -> Reply {
        catch_unwind(AssertUnwindSafe(|| self.0.broken())).unwrap_or_else(|_| Reply {
            status: 500,
            headers: Vec::new(),
            body: Body::Bytes(Vec::new()),
        })
    }
}
