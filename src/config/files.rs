//! `routes[].files`: types and defaults.

use std::path::PathBuf;
use std::time::Duration;

use super::ContentCoding;

/// Files of a folder, below the prefix of their route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The folder that stands for the route's prefix. For a route with `path_exact` it may be a file.
    pub root: PathBuf,
    /// The file that answers for its folder; `None`: none does. Default `index.html`.
    pub index: Option<String>,
    /// Who answers where there is no file. Default nobody: 404.
    pub fallback: Fallback,
    /// The file below the root whose content is the page of a 404, without a slash at its beginning. Default none.
    pub not_found: Option<String>,
    /// The codings in which a file may lie beside itself, as `name.br`, `name.zst` and `name.gz`, ready to be sent. Default all; none where the route is `internal`.
    pub precompressed: Vec<ContentCoding>,
    /// Which files never change. Default [`Immutable::Manifest`].
    pub immutable: Immutable,
    /// How long the others may be kept unasked. Default 60 s.
    pub max_age: Duration,
    /// Whether a folder without an index shows what is in it. Default false.
    pub browse: bool,
    /// Default [`Symlinks::Inside`].
    pub symlinks: Symlinks,
}

impl Files {
    /// The files of a folder, with every default.
    #[must_use]
    pub fn of(root: PathBuf) -> Self {
        Self {
            root,
            index: Some("index.html".into()),
            fallback: Fallback::Nobody,
            not_found: None,
            precompressed: ContentCoding::ALL.to_vec(),
            immutable: Immutable::Manifest,
            max_age: Duration::from_secs(60),
            browse: false,
            symlinks: Symlinks::Inside,
        }
    }

    /// The files to which an app leads, with every default of those. They are uploads, more often than not: `report.csv.gz`
    /// may be another's than `report.csv`, whom the app has asked for that one alone.
    #[must_use]
    pub fn for_app(root: PathBuf) -> Self {
        Self { precompressed: Vec::new(), ..Self::of(root) }
    }

    /// The files of a folder, each by its own name and nothing in its place.
    #[must_use]
    pub fn by_name(root: PathBuf) -> Self {
        let (index, precompressed, immutable) = (None, Vec::new(), Immutable::Off);
        Self { index, precompressed, immutable, ..Self::of(root) }
    }
}

/// Who answers where there is no file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fallback {
    /// Nobody: 404.
    Nobody,
    /// The routes that stand behind this one.
    Next,
    /// This file below the root, without a slash at its beginning, with 200: the page of an app that runs in the browser.
    File(String),
}

/// Which files never change under their name, so that nobody has to ask for them again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Immutable {
    /// Those that Django's `staticfiles.json` in the root names as the hashed form of another.
    Manifest,
    /// Those whose name has a hash in it.
    Hashed,
    /// None.
    Off,
}

/// Which symbolic links below the root are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symlinks {
    /// Relative ones that lead nowhere but below the root.
    Inside,
    /// All.
    Follow,
    /// None.
    Never,
}
