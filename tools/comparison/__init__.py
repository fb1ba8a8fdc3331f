"""What tools/compare is made of.

  process    pinned children, and what they used
  run        one generator into one target
  programs   the generators and targets: ours, Postfix's, wrk, h2load, oha, nginx, openssl
  pairs      A B A B, which pairs count, ratios, bars
  works      the table of everything that is compared, with its bars
  apart      works that are no pairs of runs: handshakes, idle sessions, start, user-space CPU
"""
