//! A registry in memory for the tests, with the part of the distribution protocol that pushes and
//! pulls use. <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

#[derive(Default)]
struct Store {
    blobs: BTreeMap<String, Bytes>,
    /// By tag and by digest: media type and manifest.
    manifests: BTreeMap<String, (String, Bytes)>,
    uploads: BTreeMap<String, Vec<u8>>,
    /// The number of blobs that were fetched.
    blob_reads: u32,
}

/// A registry with one repository, `test`.
#[derive(Clone)]
pub struct Registry {
    pub host: String,
    store: Arc<Mutex<Store>>,
}

pub fn digest_of(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Registry {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = Registry {
            host: listener.local_addr().unwrap().to_string(),
            store: Arc::default(),
        };
        let router = Router::new()
            .fallback(answer)
            .layer(DefaultBodyLimit::disable())
            .with_state(registry.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        registry
    }

    pub fn blob_reads(&self) -> u32 {
        self.store.lock().unwrap().blob_reads
    }

    pub fn blobs(&self) -> Vec<Bytes> {
        self.store.lock().unwrap().blobs.values().cloned().collect()
    }

    pub fn put_blob(&self, bytes: impl Into<Bytes>) -> String {
        let bytes = bytes.into();
        let digest = digest_of(&bytes);
        self.store
            .lock()
            .unwrap()
            .blobs
            .insert(digest.clone(), bytes);
        digest
    }

    pub fn put_manifest(&self, name: &str, media_type: &str, bytes: impl Into<Bytes>) -> String {
        let bytes = bytes.into();
        let digest = digest_of(&bytes);
        let mut store = self.store.lock().unwrap();
        for name in [name, digest.as_str()] {
            let manifest = (media_type.to_string(), bytes.clone());
            store.manifests.insert(name.to_string(), manifest);
        }
        digest
    }
}

async fn answer(
    State(registry): State<Registry>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(path) = uri.path().strip_prefix("/v2/test/") else {
        return match uri.path() {
            "/v2/" => StatusCode::OK.into_response(),
            _ => unknown("NAME_UNKNOWN"),
        };
    };
    let created = |location: String, status: StatusCode| {
        (status, [(header::LOCATION, location)]).into_response()
    };
    let upload = |id: &str| format!("/v2/test/blobs/uploads/{id}");
    if let Some(id) = path.strip_prefix("blobs/uploads/") {
        let mut store = registry.store.lock().unwrap();
        let id = match id {
            "" => format!("upload-{}", store.uploads.len()),
            id => id.to_string(),
        };
        let bytes = store.uploads.entry(id.clone()).or_default();
        bytes.extend_from_slice(&body);
        let range = format!("0-{}", bytes.len().saturating_sub(1));
        if method == Method::PUT {
            let bytes = std::mem::take(bytes);
            drop(store);
            let wanted = uri.query().unwrap_or_default().replace("%3A", ":");
            let digest = registry.put_blob(bytes);
            assert_eq!(wanted, format!("digest={digest}"));
            return created(format!("/v2/test/blobs/{digest}"), StatusCode::CREATED);
        }
        let mut response = created(upload(&id), StatusCode::ACCEPTED);
        response
            .headers_mut()
            .insert(header::RANGE, range.parse().unwrap());
        return response;
    }
    if let Some(digest) = path.strip_prefix("blobs/") {
        let mut store = registry.store.lock().unwrap();
        store.blob_reads += u32::from(method == Method::GET);
        return match store.blobs.get(digest) {
            Some(bytes) => bytes.clone().into_response(),
            None => unknown("BLOB_UNKNOWN"),
        };
    }
    let Some(name) = path.strip_prefix("manifests/") else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if method == Method::PUT {
        let media_type = headers[header::CONTENT_TYPE].to_str().unwrap();
        let digest = registry.put_manifest(name, media_type, body);
        return created(format!("/v2/test/manifests/{digest}"), StatusCode::CREATED);
    }
    let manifest = registry.store.lock().unwrap().manifests.get(name).cloned();
    match manifest {
        Some((media_type, bytes)) => ([(header::CONTENT_TYPE, media_type)], bytes).into_response(),
        None => unknown("MANIFEST_UNKNOWN"),
    }
}

fn unknown(code: &str) -> Response {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"unknown"}}]}}"#);
    (
        StatusCode::NOT_FOUND,
        [(header::CONTENT_TYPE, "application/json")],
        body,
    )
        .into_response()
}
