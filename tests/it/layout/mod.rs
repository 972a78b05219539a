//! The layout of the source tree, checked by reading `src/`.
//!
//! | file | provides |
//! | --- | --- |
//! | `sources` | the files without comments, strings and tests |
//! | `paths` | paths and use declarations in the text of a file |
//! | `imports` | the tables of allowed imports |
//! | `circles` | circles of imports between files |
//! | `checker` | tests of the rules |
//! | `questions` | the table "Where is it?" of `CONTRIBUTING.md` |
//! | `planted` | whether the planted bugs apply |

mod checker;
mod circles;
mod imports;
mod paths;
mod planted;
mod questions;
mod sources;
