"""Options of `fofoca submit` by the part of the spec they fill; each module has OPTIONS and body()."""
