use std::path::PathBuf;

use super::*;

const PEER: ([u8; 4], u16) = ([127, 0, 0, 1], 50_000);
const NOW: Timestamp = Timestamp::from_seconds(1_000);

/// The access rules; with TLS and its `client_ca`, unless it is "plain".
fn access(token: Option<&str>, tls: &str) -> Access {
    let client_ca = (tls == "ca.pem").then(|| PathBuf::from(tls));
    let tls =
        (tls != "plain").then(|| config::ServerTlsConfig { cert: PathBuf::new(), key: PathBuf::new(), client_ca });
    let hosts = vec!["ops.example".into()];
    Access::new(&config::AdminConfig { token: token.map(Into::into), hosts, metric_streams: 0, tls })
}

fn request(path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let request = Request::builder().uri(path);
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
}

fn admit(token: Option<&str>, path: &str, headers: &[(&str, &str)]) -> Result<AdminRequester, AccessError> {
    access(token, "plain").admit(&request(path, headers), PEER.into(), NOW)
}

/// The pair of name and value in `Set-Cookie`.
fn pair(set_cookie: &HeaderValue) -> &str {
    set_cookie.to_str().unwrap().split(';').next().unwrap()
}

#[test]
fn token_is_needed_for_all_but_health_and_metrics() {
    let peer = Ok(AdminRequester::Peer(PEER.into()));
    let public = ["/metrics", "/koregate/v1/problems/", "/koregate/v1/problems/forbidden"];
    for path in PROBES.into_iter().chain(public) {
        assert_eq!(admit(Some("right"), path, &[("host", "pod.example")]), peer, "{path}");
    }
    for path in SIGN_IN_PATHS {
        assert_eq!(admit(Some("right"), path, &[("host", "localhost")]), peer, "{path}");
        assert!(admit(Some("right"), path, &[("host", "pod.example")]).is_err(), "{path}");
    }
    for path in ["/", "/api/v1/status", "/api/v1/callers", "/api/v1/purge", "/nothing", "/livez/", "/sign-out"] {
        let admit_with = |value| admit(Some("right"), path, &[("host", "localhost"), ("authorization", value)]);
        assert_eq!(admit(Some("right"), path, &[("host", "localhost")]), Err(AccessError::NoToken), "{path}");
        for wrong in ["Bearer wrong", "Bearer righ", "Bearer rightt", "Bearer ", "Basic right", "right"] {
            assert_eq!(admit_with(wrong), Err(AccessError::NoToken), "{path}: {wrong}");
        }
        assert_eq!(admit_with("Bearer right"), Ok(AdminRequester::Token), "{path}");
        assert_eq!(admit(None, path, &[("host", "localhost")]), peer, "{path}");
    }
}

#[test]
fn host_of_another_listener_is_refused_with_the_token_too() {
    let admit_with = |host| admit(Some("right"), "/", &[("host", host), ("authorization", "Bearer right")]);
    assert_eq!(admit_with("evil.example"), Err(AccessError::Head(HeadError::Misdirected)));
    assert_eq!(admit_with("ops.example:9090"), Ok(AdminRequester::Token));
}

#[test]
fn token_is_exchanged_for_a_session_that_can_be_ended() {
    let access = access(Some("right"), "plain");
    assert_eq!(access.sign_in(b"wrong", NOW), None);
    let set_cookie = access.sign_in(b"right", NOW).unwrap();
    assert!(set_cookie.to_str().unwrap().ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"));
    let asks = request("/", &[("host", "localhost"), ("cookie", pair(&set_cookie))]);
    let admitted = access.admit(&asks, PEER.into(), NOW);
    assert!(matches!(admitted, Ok(AdminRequester::Session(csrf)) if csrf != access.csrf), "{admitted:?}");
    let later = NOW + SESSION_LIFETIME;
    assert_eq!(access.admit(&asks, PEER.into(), later), Err(AccessError::NoToken));
    let forged = request("/", &[("host", "localhost"), ("cookie", &format!("koregate-admin={}", "0".repeat(64)))]);
    assert_eq!(access.admit(&forged, PEER.into(), NOW), Err(AccessError::NoToken));
    assert_eq!(pair(&access.sign_out(asks.headers())), "koregate-admin=");
    assert_eq!(access.admit(&asks, PEER.into(), NOW), Err(AccessError::NoToken));
}

#[test]
fn cookie_is_secure_over_tls() {
    let set_cookie = access(Some("right"), "tls").sign_in(b"right", NOW).unwrap();
    let text = set_cookie.to_str().unwrap();
    assert!(text.starts_with("__Host-koregate-admin=") && text.ends_with("; HttpOnly; SameSite=Strict; Secure"));
}

#[test]
fn change_by_a_browser_needs_the_origin_and_the_token_of_the_page() {
    let access = access(Some("right"), "plain");
    let (session, other) = (CsrfToken([3; 32]), CsrfToken([4; 32]));
    let own = [("host", "localhost:9090"), ("origin", "http://localhost:9090")];
    let foreign = [("host", "localhost:9090"), ("origin", "http://localhost:3000")];
    let (session_requester, peer) = (AdminRequester::Session(session), AdminRequester::Peer(PEER.into()));
    for (requester, headers, token, is_allowed) in [
        (AdminRequester::Token, &own[..1], None, true),
        (peer, &own[..1], None, true),
        (session_requester, &own[..1], Some(session), false),
        (session_requester, &own, Some(session), true),
        (session_requester, &own, Some(other), false),
        (session_requester, &own, None, false),
        (session_requester, &foreign, Some(session), false),
        (peer, &own, Some(access.csrf), true),
        (peer, &own, None, false),
        (peer, &foreign, Some(access.csrf), false),
        (AdminRequester::Token, &own, None, false),
    ] {
        let (request, token) = (request("/", headers), token.map(|token| token.to_string()));
        let mut fields = request.headers().clone();
        let by_form = access.check_change(requester, &fields, token.as_deref());
        assert_eq!(by_form.is_ok(), is_allowed, "{requester:?} {headers:?} {token:?}");
        if let Some(token) = &token {
            fields.insert(CSRF_HEADER, token.parse().unwrap());
        }
        assert_eq!(access.check_change(requester, &fields, None), by_form);
    }
}

#[test]
fn valid_certificate_is_needed_for_all_but_probes() {
    let access = access(None, "ca.pem");
    let admit = |path, until: Option<Timestamp>| {
        let mut request = request(path, &[("host", "localhost")]);
        let certificate = until.map(|until| PeerCertificate { names: [].into(), until });
        certificate.map(|certificate| request.extensions_mut().insert(certificate));
        access.admit(&request, PEER.into(), NOW)
    };
    for path in PROBES {
        assert!(admit(path, None).is_ok() && admit(path, Some(NOW)).is_ok(), "{path}");
    }
    for path in ["/", "/metrics", "/api/v1/status", "/sign-in", "/koregate/v1/problems/"] {
        assert_eq!(admit(path, None), Err(AccessError::NoCertificate), "{path}");
        assert_eq!(admit(path, Some(NOW)), Err(AccessError::NoCertificate), "{path}");
        assert!(admit(path, Some(NOW.next_tick())).is_ok(), "{path}");
    }
}
