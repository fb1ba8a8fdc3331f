//! The control API: who may ask, and the HTTP server that carries it.

pub mod guard;
pub mod http;
pub mod openapi;
pub mod routes;
