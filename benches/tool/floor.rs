//! The floor: what hyper costs that answers with bytes it holds already. koregate is made with hyper, so what it costs
//! beyond this is its own.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Every file by its path, `/name`, and what it holds.
type Files = Arc<HashMap<String, Bytes>>;

/// Serves the files of `directory` at `address` until it is killed. Who accepts gzip gets `name.gz`, if there is one.
pub(crate) fn run(address: &str, directory: &str) -> anyhow::Result<()> {
    let mut files = HashMap::new();
    for entry in std::fs::read_dir(directory).context(directory.to_owned())? {
        let entry = entry?;
        files.insert(format!("/{}", entry.file_name().to_string_lossy()), std::fs::read(entry.path())?.into());
    }
    // The same runtime as koregate's, which takes as many threads as there are cores that it may use.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(address, Arc::new(files)))
}

async fn serve(address: &str, files: Files) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.context(address.to_owned())?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let files = files.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = respond(&files, &request);
                async { Ok::<_, Infallible>(response) }
            });
            // Whoever hangs up is no news.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn respond(files: &Files, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let gzip = request.headers().get(ACCEPT_ENCODING).is_some_and(|accepted| accepted.as_bytes() == b"gzip");
    let packed = gzip.then(|| files.get(&format!("{path}.gz"))).flatten();
    let Some(body) = packed.or_else(|| files.get(path)) else {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let mut response = Response::new(Full::new(body.clone()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if packed.is_some() {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}
