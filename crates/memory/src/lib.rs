//! A tenant's memory as the server sees it
