//! nginx as an HTTP API: fixed answers, one path each.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::process::{read, show};
use super::{Certificate, Port, Process, poll};

/// A running nginx.
pub struct Nginx {
    dir: TempDir,
    clear: Port,
    secured: Port,
    process: Process,
}

impl Nginx {
    /// Starts it; it listens in the clear, and with TLS by this certificate.
    pub fn start(certificate: &Certificate) -> Nginx {
        Nginx::launch(certificate, "")
    }

    /// The same; what is asked of it below `/stub/` it asks of the server at this port of loopback, below its root; and
    /// what is asked for example.com, as it is.
    pub fn before(certificate: &Certificate, port: u16) -> Nginx {
        let location = format!(
            "location /stub/ {{ proxy_pass http://127.0.0.1:{port}/; proxy_http_version 1.1; proxy_set_header Connection ''; }}
             location /v3/example.com/ {{ proxy_pass http://127.0.0.1:{port}; proxy_http_version 1.1; \
             proxy_set_header Connection ''; }}"
        );
        Nginx::launch(certificate, &location)
    }

    fn launch(certificate: &Certificate, location: &str) -> Nginx {
        let dir = tempfile::Builder::new().prefix("timecop-nginx-").tempdir().expect("a temporary folder");
        let (clear, secured) = (Port::claim(), Port::claim());
        let conf = dir.path().join("nginx.conf");
        fs::write(&conf, configuration(&dir, certificate, [clear.number(), secured.number()], location))
            .expect("a file in ours");
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-e").arg(dir.path().join("error.log")).arg("-p").arg(dir.path()).arg("-c").arg(&conf);
        let process = Process::start(&mut command);
        let nginx = Nginx { dir, clear, secured, process };
        poll("nginx on its port", || std::net::TcpStream::connect(("127.0.0.1", nginx.clear.number())).ok());
        nginx
    }

    /// A URL below it.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.clear.number())
    }

    /// The same with TLS.
    pub fn secured_url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.secured.number())
    }

    /// Ends it and gives its log: a line a request, with method, path, status, Content-Length, Content-Type and
    /// Authorization.
    pub fn stop(self) -> Vec<String> {
        self.process.signal("QUIT");
        let finished = self.process.finish();
        let log = read(&self.dir.path().join("access.log"));
        if !finished.status.success() {
            show("nginx", &read(&self.dir.path().join("error.log")));
        }
        log.lines().map(str::to_owned).collect()
    }
}

fn configuration(dir: &TempDir, certificate: &Certificate, [clear, secured]: [u16; 2], location: &str) -> String {
    let dir = dir.path().display();
    let (file, key) = (certificate.file(), certificate.key_file());
    let (file, key) = (file.display(), key.display());
    format!(
        r#"
daemon off;
master_process off;
pid {dir}/nginx.pid;
error_log {dir}/error.log;
events {{ worker_connections 512; }}
http {{
    log_format told '$request_method $request_uri $status $content_length $content_type $http_authorization';
    access_log {dir}/access.log told;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    client_max_body_size 1m;
    default_type application/json;
    server {{
        listen 127.0.0.1:{clear};
        listen 127.0.0.1:{secured} ssl;
        ssl_certificate {file};
        ssl_certificate_key {key};
        keepalive_requests 100;
        location /v3/ {{ return 200 '{{"id":"<1@example.com>","message":"Queued. Thank you."}}'; }}
        location /chunked/ {{
            sub_filter_types *;
            sub_filter queued Queued;
            return 200 '{{"id":"<1@example.com>","message":"queued."}}';
        }}
        {location}
        location /limit/ {{ add_header Retry-After 1 always; return 429 '{{"message":"too many"}}'; }}
        location /broken/ {{ return 500 '{{"message":"out of order"}}'; }}
        location /forbidden/ {{ return 401 '"Forbidden"'; }}
        location /moved/ {{ return 302 http://127.0.0.1:1/; }}
        location /once/ {{ keepalive_timeout 0; return 200 'ok'; }}
        location /silent/ {{ return 444; }}
    }}
}}
"#
    )
}
