"""Thousands of players in virtual time: a discrete-event world over the gossip core, its scenarios and its reports."""
