//! What a file must be.

use serde::{Deserialize, Serialize};

/// Limits for files that are sent for one purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Accept {
    /// Media types, such as `application/pdf` or `image/*`. Empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mime_types: Vec<String>,
    /// Most bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u64>,
}

impl Accept {
    /// What is wrong with a file of this type and size, for people; `None`: it fits. Parameters of a media type do not count, nor does case.
    pub fn refuses(&self, mime_type: &str, size: u64) -> Option<String> {
        let plain = mime_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let fits = |pattern: &String| match pattern.strip_suffix("/*") {
            Some(family) => plain.split_once('/').is_some_and(|(of, _)| of.eq_ignore_ascii_case(family)),
            None => pattern.eq_ignore_ascii_case(&plain),
        };
        if !self.mime_types.is_empty() && !self.mime_types.iter().any(fits) {
            let is: String = plain.chars().filter(|c| !c.is_control()).take(127).collect();
            return Some(format!("the file is of type {is}, not {}", self.mime_types.join(", ")));
        }
        let most = self.max_size.filter(|most| size > *most)?;
        Some(format!("the file has {size} bytes, more than {most}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_and_sizes_are_compared_as_people_mean_them() {
        let accept = Accept { mime_types: vec!["application/PDF".into(), "image/*".into()], max_size: Some(1024) };
        for (mime, size) in [("application/pdf", 1024), ("Application/Pdf; charset=x", 1), ("image/png", 0)] {
            assert_eq!(accept.refuses(mime, size), None, "{mime}");
        }
        for (mime, size) in [("application/pdf", 1025), ("application/pdfx", 1), ("imagex/png", 1), ("image", 1), ("", 1)] {
            assert!(accept.refuses(mime, size).is_some(), "{mime} {size}");
        }
        assert_eq!(Accept::default().refuses("any/thing", u64::MAX), None);
    }
}
