//! Files that the binary holds, packed at build time by `src/build.rs`, as answers.
//!
//! They go out packed to who takes gzip, and are unpacked for who does not. A client keeps them and asks each time whether
//! they are still the same, so that after an upgrade nobody works with what was before.

use crate::http::{Body, Head, Reply};

/// A file.
pub struct Asset {
    pub name: &'static str,
    pub content_type: &'static str,
    /// Weak, as packed and unpacked share it.
    pub etag: &'static str,
    pub gzip: &'static [u8],
}

/// All files of the dashboard, in order of name.
pub static DASHBOARD: &[Asset] = include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

/// The description of the API.
pub static OPENAPI: Asset = include!(concat!(env!("OUT_DIR"), "/openapi.rs"));

impl Asset {
    /// The answer to who asks for it, with further headers.
    pub fn reply(&self, head: &Head, further: &[(&'static str, &str)]) -> Reply {
        let mut headers = vec![
            ("Cache-Control", "no-cache".to_owned()),
            ("ETag", self.etag.to_owned()),
            // Origin: what the CORS gate says. Of one name, a reply's own header holds.
            ("Vary", "Accept-Encoding, Origin".to_owned()),
        ];
        headers.extend(
            further
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        let known = head.header("if-none-match").unwrap_or_default();
        if names(known, self.etag) {
            return Reply {
                status: 304,
                headers,
                body: Body::Bytes(Vec::new()),
            };
        }
        headers.push(("Content-Type", self.content_type.to_owned()));
        let accepted = head.header("accept-encoding").unwrap_or_default();
        let body = match takes_gzip(accepted) {
            true => {
                headers.push(("Content-Encoding", "gzip".to_owned()));
                self.gzip.to_vec()
            }
            false => self.unpacked(),
        };
        Reply {
            status: 200,
            headers,
            body: Body::Bytes(body),
        }
    }

    /// The file as it was before it was packed.
    fn unpacked(&self) -> Vec<u8> {
        // What gzip puts around the deflated bytes, as `src/build.rs` writes it.
        const HEAD: usize = 10;
        const TAIL: usize = 8;
        let deflated = &self.gzip[HEAD..self.gzip.len() - TAIL];
        miniz_oxide::inflate::decompress_to_vec(deflated).expect("the build has packed it")
    }
}

/// Whether an If-None-Match names this version. Source: RFC 9110 13.1.2, weak comparison.
fn names(known: &str, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    known.trim() == "*" || known.split(',').any(|tag| opaque(tag) == opaque(etag))
}

/// Whether an Accept-Encoding has gzip; who says nothing gets plain bytes. Source: RFC 9110 12.5.3.
fn takes_gzip(accepted: &str) -> bool {
    let (mut gzip, mut any) = (None, false);
    for coding in accepted.split(',') {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        let takes =
            weight.is_none_or(|weight| weight.parse().is_ok_and(|weight: f32| weight > 0.0));
        match name {
            "*" => any = takes,
            name if name.eq_ignore_ascii_case("gzip") => gzip = Some(takes),
            _ => {}
        }
    }
    gzip.unwrap_or(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_together_are_small() {
        let packed: usize = DASHBOARD.iter().map(|asset| asset.gzip.len()).sum();
        assert!(packed < 60 << 10, "{packed} bytes");
    }

    #[test]
    fn each_file_is_what_was_packed() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/dashboard");
        let mut files = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_file() && !name.starts_with('.') {
                let asset = DASHBOARD.iter().find(|asset| asset.name == name).unwrap();
                assert_eq!(asset.unpacked(), std::fs::read(&path).unwrap(), "{name}");
                files += 1;
            }
        }
        assert_eq!(files, DASHBOARD.len());
        assert!(DASHBOARD.iter().any(|asset| asset.name == "index.html"));
    }

    #[test]
    fn gzip_goes_to_who_takes_it() {
        for accepted in [
            "gzip",
            "GZIP",
            "gzip, deflate, br",
            "deflate, gzip;q=0.1",
            "*",
            "br;q=1.0, *;q=0.5",
            "gzip; q=0.001",
        ] {
            assert!(takes_gzip(accepted), "{accepted}");
        }
        for accepted in [
            "",
            "identity",
            "gzip;q=0",
            "gzip;q=0.000, *",
            "*;q=0",
            "deflate, br",
            "xgzip",
            "gzip;q=x",
        ] {
            assert!(!takes_gzip(accepted), "{accepted}");
        }
    }

    #[test]
    fn a_version_that_the_client_has_is_recognised() {
        let etag = "W/\"1-2\"";
        for known in [
            "W/\"1-2\"",
            "\"1-2\"",
            "*",
            "\"x\", W/\"1-2\"",
            " W/\"1-2\" ",
        ] {
            assert!(names(known, etag), "{known}");
        }
        for known in ["", "W/", "\"1-3\"", "1-2", "W/\"1-22\""] {
            assert!(!names(known, etag), "{known}");
        }
    }
}
