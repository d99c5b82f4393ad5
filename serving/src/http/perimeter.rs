//! Decides which requests reach an endpoint: by the name of this server, the origin of a page, credentials and roles.
//!
//! The checks are plain functions inside two layers around CORS. A layer of its own for each check would copy the layers inside it,
//! and put its future into a box, for every request.

use std::sync::Arc;

use auth::guard::{Checkpoint, Guard};
use auth::trail::Trail;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use problem::net;
use shared::clock::SystemClock;

use super::{Hosts, Origins, Roles};
use crate::route_scopes::requirement;

/// Decides which requests are admitted before any endpoint sees them.
#[derive(Debug, Clone)]
pub struct Perimeter {
    /// Finds out who sent a request, and what that principal may do.
    pub guard: Arc<Guard>,
    /// The names of this server.
    pub hosts: Hosts,
    /// The pages that may read and change something.
    pub origins: Origins,
    /// The sides that this process serves.
    pub roles: Roles,
    /// Gives requests their ids, and records them.
    pub trail: Trail,
}

impl Perimeter {
    /// Returns the perimeter of a server on this machine, without keys.
    pub fn open() -> Perimeter {
        Perimeter::new(Guard::open(Arc::new(SystemClock)), Hosts::default(), Origins::default())
    }

    /// Joins the parts. Nothing is recorded.
    pub fn new(guard: Guard, hosts: Hosts, origins: Origins) -> Perimeter {
        let trail = Trail { clock: Arc::new(SystemClock), audit: None };
        Perimeter { guard: Arc::new(guard), hosts, origins, roles: Roles::default(), trail }
    }
}

/// What [`admit`] asks.
#[derive(Debug)]
pub(crate) struct Gate {
    origins: Origins,
    checkpoint: Checkpoint,
    roles: Roles,
}

impl Gate {
    pub(crate) fn of(perimeter: &Perimeter) -> Gate {
        let checkpoint = Checkpoint { guard: Arc::clone(&perimeter.guard), requirement };
        Gate { origins: perimeter.origins.clone(), checkpoint, roles: perimeter.roles }
    }
}

/// What [`enter`] asks.
#[derive(Debug)]
pub(crate) struct Entrance {
    trail: Trail,
    hosts: Hosts,
}

impl Entrance {
    pub(crate) fn of(perimeter: &Perimeter) -> Entrance {
        Entrance { trail: perimeter.trail.clone(), hosts: perimeter.hosts.clone() }
    }
}

/// Middleware around all others, CORS included: the request gets its id, and passes if it was sent to this server.
pub(crate) async fn enter(State(entrance): State<Arc<Entrance>>, request: Request, next: Next) -> Response {
    let respond = async |request| match entrance.hosts.check(&request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    entrance.trail.follow(request, respond).await
}

/// Middleware inside CORS: the request passes if its page, its principal and this process may do what it asks for. It
/// carries the [`Guard`] for the login page.
pub(crate) async fn admit(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    if let Err(problem) = gate.origins.check(&request) {
        return problem.into_response();
    }
    let respond = async |mut request: Request| match gate.roles.check(&request) {
        Ok(()) => {
            request.extensions_mut().insert(Arc::clone(&gate.checkpoint.guard));
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    };
    net::catch(request, |request| gate.checkpoint.check(request, respond)).await
}
