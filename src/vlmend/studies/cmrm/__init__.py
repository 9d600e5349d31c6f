"""The study of CMRM: every table and figure of its paper."""
