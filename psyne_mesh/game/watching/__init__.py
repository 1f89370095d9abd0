"""What spectators see of a room, pure: what players say (`feed`), who fetches it (`gate`), what is believed (`viewer`)."""
