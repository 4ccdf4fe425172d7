//! What the end-to-end tests share: starting servers and waiting for states.
