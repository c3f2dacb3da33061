//! A request's failure, as the client gets it.

use crate::api::ErrorBody;
use crate::daemon::policy::LoadError;
use crate::exit::Exit;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// What went wrong.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

impl ApiError {
    fn new(status: StatusCode, exit: Exit, message: impl Into<String>) -> Self {
        ApiError { status, body: ErrorBody { exit, message: message.into(), diagnostics: Vec::new() } }
    }

    /// The request makes no sense: exit code 2.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, Exit::Usage, message)
    }

    /// What it asks for does not exist: exit code 1.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::NOT_FOUND, Exit::Error, message)
    }

    /// Something that should work does not: exit code 5.
    pub(super) fn degraded(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, Exit::Degraded, message)
    }

    /// The caller may not: exit code 1.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::FORBIDDEN, Exit::Error, message)
    }
}

impl From<LoadError> for ApiError {
    fn from(e: LoadError) -> Self {
        let mut error = ApiError::usage(e.to_string());
        if let LoadError::Invalid { findings, .. } = e {
            error.body.diagnostics = findings;
        }
        error
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}
