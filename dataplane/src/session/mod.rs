//! What a session is: an unchanging birth, facts that only grow, and an end.

pub mod record;
pub mod timeouts;
