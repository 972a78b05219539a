//! `[traces]` and the variables of OpenTelemetry, and `[log]`.

use super::*;

fn traces(lines: &str, variables: &[(&str, &str)]) -> Result<TracesConfig, String> {
    load_with(&format!("{MINIMAL}[traces]\n{lines}"), variables).map(|config| config.traces)
}

fn endpoint(lines: &str, variables: &[(&str, &str)]) -> Option<String> {
    Some(traces(lines, variables).unwrap().collector?.endpoint.to_string())
}

#[test]
fn path_of_the_protocol_is_added_to_the_endpoint() {
    for (lines, expected) in [
        ("endpoint = 'http://c:4318'", "http://c:4318/v1/traces"),
        ("endpoint = 'https://c/otlp/'", "https://c/otlp/v1/traces"),
        ("endpoint = 'http://c:4318/v1/traces'", "http://c:4318/v1/traces"),
        ("endpoint = 'http://c:4317'\nprotocol = 'grpc'", "http://c:4317/"),
    ] {
        assert_eq!(endpoint(lines, &[]).as_deref(), Some(expected), "{lines}");
    }
    for (lines, says) in [
        ("endpoint = 'c:4318'", "no scheme"),
        ("endpoint = 'ftp://c:4318'", "neither http nor https"),
        ("endpoint = 'http://me:pw@c:4318'", "user or a password"),
        ("endpoint = 'http://c:4318?a=b'", "a query"),
        ("protocol = 'udp'", "must be"),
        ("sample_ratio = 1.5", "from 0 to 1"),
        ("ca_file = '/ca.pem'", "of no use without `endpoint`"),
        ("endpoint = 'http://c:4318'\nheaders = { env = 'HEADERS' }", "write https"),
        ("endpoint = 'https://c:4318'\nheaders = { env = 'PROXY' }", "must be like"),
        ("endpoint = 'https://c:4318'\nheaders = 'x=s3cr3t'", "a secret is not written down"),
    ] {
        let error = traces(lines, &[]).unwrap_err();
        assert!(error.contains(says) && !error.contains("s3cr3t"), "{lines}: {error}");
    }
    assert!(endpoint("endpoint = 'http://127.0.0.1:4318'\nheaders = { env = 'HEADERS' }", &[]).is_some());
}

#[test]
fn standard_variables_count_only_if_the_endpoint_says_so() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_SERVICE_NAME", "from-env"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=p%201,deployment.environment=test"),
    ];
    let unheeded = traces("", &variables).unwrap();
    assert!(unheeded.collector.is_none());
    assert_eq!((unheeded.service_name.as_str(), unheeded.sampling.ratio), ("koregate", 0.0));
    let by_env = traces("endpoint = 'env'", &variables).unwrap();
    assert_eq!(by_env.collector.unwrap().endpoint, "http://env:4317/");
    assert_eq!((by_env.protocol, by_env.service_name.as_str()), (TraceProtocol::Grpc, "from-env"));
    assert_eq!(by_env.sampling, TraceSampling { ratio: 0.25, follows_parent: true });
    assert_eq!(by_env.resource[0], ("k8s.pod.name".to_owned(), "p 1".to_owned()));
    // What is written down comes first.
    let mixed = traces("endpoint = 'env'\nservice_name = 'own'\nsample_ratio = 0.5", &variables).unwrap();
    assert_eq!((mixed.service_name.as_str(), mixed.sampling.ratio), ("own", 0.5));
}

#[test]
fn variables_of_opentelemetry_have_their_standard_meaning() {
    let env = |variables: &[(&str, &str)]| endpoint("endpoint = 'env'", variables);
    let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/own/path");
    assert_eq!(env(&[whole]).as_deref(), Some("http://c:4318/own/path"));
    assert_eq!(env(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/")]).as_deref(), Some("http://c:4318/v1/traces"));
    for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
        assert_eq!(env(&[whole, off]), None);
    }
    assert_eq!(env(&[]), None);
    for (sampler, ratio, follows_parent) in [
        ("always_on", 1.0, false),
        ("always_off", 0.0, false),
        ("parentbased_always_on", 1.0, true),
        ("parentbased_always_off", 0.0, true),
    ] {
        let config = traces("endpoint = 'env'", &[whole, ("OTEL_TRACES_SAMPLER", sampler)]).unwrap();
        assert_eq!(config.sampling, TraceSampling { ratio, follows_parent }, "{sampler}");
    }
    for wrong in [
        ("OTEL_TRACES_SAMPLER", "xray"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "s3cr3t"),
    ] {
        let error = traces("endpoint = 'env'", &[whole, wrong]).unwrap_err();
        assert!(!error.contains("s3cr3t"), "{error}");
    }
}

#[test]
fn audit_log_is_a_file_or_the_standard_output() {
    for (lines, expected) in [
        ("", None),
        ("audit = 'stdout'", Some(AuditTarget::Stdout)),
        ("audit = '/a/b.jsonl'", Some(AuditTarget::File("/a/b.jsonl".into()))),
    ] {
        assert_eq!(load(&format!("{MINIMAL}[log]\n{lines}")).unwrap().log.audit, expected);
    }
    assert!(load(&format!("{MINIMAL}[log]\naudit = ''")).is_err());
}
