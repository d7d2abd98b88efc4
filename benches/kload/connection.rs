//! One HTTP/1.1 connection over TLS: requests one after another, or one watch.

use anyhow::{Context as _, Result, ensure};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::http1::Response;
use crate::kubeconfig::Server;

/// Room for what one read may bring; a TLS record is at most 16 KiB.
const READ: usize = 64 * 1024;

pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    input: BytesMut,
    request: Vec<u8>,
    body: Vec<u8>,
    prefix: String,
    /// The headers that are the same in every request.
    headers: String,
}

/// A status and a body that lives until the next request.
pub(crate) struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

impl Connection {
    pub(crate) async fn open(server: &Server) -> Result<Self> {
        let tcp = TcpStream::connect((server.host.as_str(), server.port)).await?;
        tcp.set_nodelay(true)?;
        let stream = TlsConnector::from(server.tls.clone()).connect(server.name.clone(), tcp).await?;
        let authorization = server.token.as_ref().map_or(String::new(), |t| format!("authorization: Bearer {t}\r\n"));
        Ok(Self {
            stream,
            input: BytesMut::new(),
            request: Vec::new(),
            body: Vec::new(),
            prefix: server.prefix.clone(),
            headers: format!(
                "host: {}:{}\r\nuser-agent: kload\r\naccept: application/json\r\n{authorization}",
                server.host, server.port
            ),
        })
    }

    /// Sends a request and reads its whole answer, whatever the status.
    pub(crate) async fn call(&mut self, method: &str, path: &str, body: &str) -> Result<Answer<'_>> {
        let mut response = self.begin(method, path, body).await?;
        self.body.clear();
        while !response.take_body(&mut self.input, &mut self.body)? {
            self.fill().await?;
        }
        Ok(Answer { status: response.status, body: &self.body })
    }

    /// The same, but any status other than `expected` is an error with what the server said.
    pub(crate) async fn expect(&mut self, expected: u16, method: &str, path: &str, body: &str) -> Result<&[u8]> {
        let answer = self.call(method, path, body).await?;
        let said = || String::from_utf8_lossy(&answer.body[..answer.body.len().min(500)]);
        ensure!(answer.status == expected, "{method} {path}: {} {}", answer.status, said());
        Ok(answer.body)
    }

    /// Gives the connection to one watch.
    pub(crate) async fn watch(mut self, path: &str) -> Result<Watch> {
        let response = self.begin("GET", path, "").await?;
        ensure!(response.status == 200, "GET {path}: {}", response.status);
        self.body.clear();
        Ok(Watch { connection: self, response, ended: false })
    }

    async fn begin(&mut self, method: &str, path: &str, body: &str) -> Result<Response> {
        self.request.clear();
        let length = match body.is_empty() {
            true => String::new(),
            false => format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()),
        };
        for part in [method, " ", &self.prefix, path, " HTTP/1.1\r\n", &self.headers, &length, "\r\n", body] {
            self.request.extend_from_slice(part.as_bytes());
        }
        self.stream.write_all(&self.request).await?;
        self.stream.flush().await?;
        loop {
            if let Some(response) = Response::take_head(&mut self.input)? {
                return Ok(response);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<()> {
        self.input.reserve(READ);
        let n = self.stream.read_buf(&mut self.input).await.context("reading an answer")?;
        ensure!(n > 0, "the server closed the connection");
        Ok(())
    }
}

/// A watch's events, a line of JSON each.
pub(crate) struct Watch {
    connection: Connection,
    response: Response,
    ended: bool,
}

impl Watch {
    /// The next event, or `None` when the server ended the watch.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            let Connection { input, body, .. } = &mut self.connection;
            self.ended = self.ended || self.response.take_body(input, body)?;
            if let Some(at) = body[searched..].iter().position(|b| *b == b'\n') {
                let rest = body.split_off(searched + at + 1);
                return Ok(Some(std::mem::replace(body, rest)));
            }
            if self.ended {
                return Ok(None);
            }
            searched = body.len();
            self.connection.fill().await?;
        }
    }
}
