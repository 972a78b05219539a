//! `[traces]`: where spans are exported to, and which; and the standard variables of OpenTelemetry, if `endpoint` says so.

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret as _, SecretString};

use super::types::{TraceCollector, TraceProtocol, TraceSampling, TracesConfig};
use crate::config::table_reader::TableReader;
use crate::config::value_tree::ConfigNode;
use crate::config::{parse, url};

/// The value of `endpoint` that names the environment.
const ENVIRONMENT: &str = "env";
const EXPECTED: &str = "write it like \"http://collector:4318\", or \"env\" for OTEL_EXPORTER_OTLP_ENDPOINT";
/// The path of OTLP over HTTP, below the endpoint.
const HTTP_PATH: &str = "/v1/traces";
const PROTOCOL_EXPECTED: &str = "must be \"http/protobuf\" or \"grpc\"";

impl parse::Keyword for TraceProtocol {
    const KEYWORDS: &'static [(&'static str, Self)] = &[("http/protobuf", Self::Http), ("grpc", Self::Grpc)];
}

/// Reads `[traces]`.
pub(in crate::config) fn traces(mut table: TableReader<'_>) -> TracesConfig {
    let written = table.optional("endpoint", |node: &ConfigNode| parse::text(node, EXPECTED).map(str::to_owned));
    let by_environment = written.as_deref() == Some(ENVIRONMENT);
    let environment = Variables { table: &table, is_used: by_environment };
    let otel = environment.read();
    let protocol = table.optional("protocol", parse::keyword).or(otel.protocol).unwrap_or(TraceProtocol::Http);
    let service_name = table.optional("service_name", parse::label).or(otel.service_name);
    let ratio = table.optional("sample_ratio", parse::share(0.0..=1.0));
    let ratio = ratio.map(|ratio| TraceSampling { ratio, follows_parent: true });
    let ca_file = table.optional("ca_file", parse::path);
    let own_headers = table.optional_secret("headers").or(otel.headers);
    let endpoint = match (written, by_environment) {
        (_, true) => otel.endpoint.map(|(url, is_whole)| (url, is_whole && protocol == TraceProtocol::Http)),
        (written, false) => written.map(|url| (url, false)),
    };
    let endpoint = endpoint.and_then(|(url, is_whole)| {
        let endpoint = endpoint_url(&url, protocol, is_whole);
        endpoint.map_err(|message| table.report("endpoint", message)).ok()
    });
    if endpoint.is_none() && !by_environment && table.is_faultless() {
        for (key, is_set) in [("ca_file", ca_file.is_some()), ("headers", own_headers.is_some())] {
            if is_set {
                table.report(key, "is of no use without `endpoint`");
            }
        }
    }
    let headers = own_headers.map(|headers| parse_headers(headers.expose_secret())).transpose();
    let headers = headers.map_err(|message| table.report("headers", message)).unwrap_or_default().unwrap_or_default();
    let collector = endpoint.map(|endpoint| TraceCollector { endpoint, headers, ca_file });
    check_collector(&table, collector.as_ref());
    table.finish();
    TracesConfig {
        collector,
        protocol,
        service_name: service_name.unwrap_or_else(|| "koregate".to_owned()),
        sampling: ratio.or(otel.sampling).unwrap_or(TraceSampling { ratio: 0.0, follows_parent: true }),
        resource: otel.resource,
    }
}

fn check_collector(table: &TableReader<'_>, collector: Option<&TraceCollector>) {
    let Some(TraceCollector { endpoint, headers, .. }) = collector else { return };
    if !cfg!(feature = "otlp") {
        table.report("endpoint", "traces cannot be exported: this program was built without the cargo feature `otlp`");
    }
    if endpoint.scheme() == Some(&Scheme::HTTP) && !headers.is_empty() && !url::is_loopback_url(endpoint) {
        table.report("endpoint", "is http, which would show `headers` to the network; write https");
    }
}

/// The URL that spans are sent to. `is_whole`: it has its path.
fn endpoint_url(text: &str, protocol: TraceProtocol, is_whole: bool) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|_| format!("is not a URL; {EXPECTED}"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return Err(format!("has no scheme or no host; {EXPECTED}"));
    };
    if authority.as_str().contains('@') {
        return Err("holds a user or a password; they belong into `headers`".to_owned());
    }
    url::check_authority(authority).map_err(|message| format!("{message}; {EXPECTED}"))?;
    if ![Scheme::HTTP, Scheme::HTTPS].contains(scheme) {
        return Err(format!("has a scheme that is neither http nor https; {EXPECTED}"));
    }
    if uri.query().is_some() || text.contains('#') {
        return Err(format!("holds a query or a fragment; {EXPECTED}"));
    }
    let base = uri.path().trim_end_matches('/');
    let path = match protocol {
        TraceProtocol::Grpc => "/".to_owned(),
        TraceProtocol::Http if is_whole => uri.path().to_owned(),
        TraceProtocol::Http => format!("{}{HTTP_PATH}", base.strip_suffix(HTTP_PATH).unwrap_or(base)),
    };
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).map_err(|_| format!("is not a URL; {EXPECTED}"))?);
    Uri::from_parts(parts).map_err(|_| format!("is not a URL; {EXPECTED}"))
}

/// `name=value` pairs with commas between them; values may be percent-encoded. The error quotes nothing.
fn parse_headers(text: &str) -> Result<HeaderMap, String> {
    const EXPECTED: &str = "must be like \"authorization=Bearer%20token,x-scope=a\"";
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        let value: Vec<u8> = percent_decode_str(value.trim()).collect();
        let mut value = HeaderValue::from_bytes(&value).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    };
    text.split(',').map(pair).collect::<Option<HeaderMap>>().ok_or_else(|| EXPECTED.to_owned())
}

/// The settings in the standard variables.
#[derive(Default)]
struct Otel {
    /// The URL, and whether it has its path.
    endpoint: Option<(String, bool)>,
    protocol: Option<TraceProtocol>,
    service_name: Option<String>,
    headers: Option<SecretString>,
    sampling: Option<TraceSampling>,
    resource: Vec<(String, String)>,
}

/// The standard variables of OpenTelemetry.
struct Variables<'a, 'b> {
    table: &'a TableReader<'b>,
    is_used: bool,
}

impl Variables<'_, '_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.table.context.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The value of a variable, of which there is one for traces alone too.
    fn exporter(&self, name: &str) -> Option<&str> {
        self.get(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
            .or_else(|| self.get(&format!("OTEL_EXPORTER_OTLP_{name}")))
    }

    fn read(&self) -> Otel {
        let is_disabled = self.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || self.get("OTEL_TRACES_EXPORTER") == Some("none");
        if !self.is_used || is_disabled {
            return Otel::default();
        }
        let whole = self.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").map(|url| (url.to_owned(), true));
        let base = || self.get("OTEL_EXPORTER_OTLP_ENDPOINT").map(|url| (url.to_owned(), false));
        let mut resource = self.resource();
        let position = resource.iter().position(|(name, _)| name == "service.name");
        let named = position.map(|place| resource.remove(place).1);
        Otel {
            endpoint: whole.or_else(base),
            protocol: self.protocol(),
            service_name: self.get("OTEL_SERVICE_NAME").map(str::to_owned).or(named),
            headers: self.exporter("HEADERS").map(SecretString::from),
            sampling: self.sampling(),
            resource,
        }
    }

    fn protocol(&self) -> Option<TraceProtocol> {
        match self.exporter("PROTOCOL")? {
            "http/protobuf" => Some(TraceProtocol::Http),
            "grpc" => Some(TraceProtocol::Grpc),
            _ => {
                self.table.report("endpoint", format!("OTEL_EXPORTER_OTLP_PROTOCOL {PROTOCOL_EXPECTED}"));
                None
            }
        }
    }

    fn sampling(&self) -> Option<TraceSampling> {
        let sampler = self.get("OTEL_TRACES_SAMPLER")?;
        let (follows_parent, kind) = match sampler.strip_prefix("parentbased_") {
            Some(kind) => (true, kind),
            None => (false, sampler),
        };
        let argument = self.get("OTEL_TRACES_SAMPLER_ARG");
        let ratio = match kind {
            "always_on" => Some(1.0),
            "always_off" => Some(0.0),
            "traceidratio" => argument.map_or(Some(1.0), |ratio| ratio.parse().ok()),
            _ => None,
        };
        let ratio = ratio.filter(|ratio| (0.0..=1.0).contains(ratio));
        if ratio.is_none() {
            self.table.report("endpoint", "OTEL_TRACES_SAMPLER or OTEL_TRACES_SAMPLER_ARG is none that is known");
        }
        ratio.map(|ratio| TraceSampling { ratio, follows_parent })
    }

    fn resource(&self) -> Vec<(String, String)> {
        let pairs = self.get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default().split(',');
        let pairs = pairs.filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(name, value)| {
                (name.trim().to_owned(), percent_decode_str(value.trim()).decode_utf8_lossy().into_owned())
            })
            .collect()
    }
}
