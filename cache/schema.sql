-- The local database.  Times are nanoseconds since 1970, sizes bytes.  See FORMAT.md.
-- epoch: every cut ends one; a row with chg above the published epoch is not published yet.
CREATE TABLE kv(
  k TEXT PRIMARY KEY,
  v NOT NULL
) WITHOUT ROWID;
CREATE TABLE inode(
  ino INTEGER PRIMARY KEY,
  mode INTEGER NOT NULL,
  uid INTEGER NOT NULL,
  gid INTEGER NOT NULL,
  nlink INTEGER NOT NULL,
  rdev INTEGER NOT NULL,
  size INTEGER NOT NULL,
  atime INTEGER NOT NULL,
  mtime INTEGER NOT NULL,
  ctime INTEGER NOT NULL,
  btime INTEGER NOT NULL,
  parent INTEGER NOT NULL,  -- of a directory; of a regular file where its name was last, or 0
  flags INTEGER NOT NULL,   -- INODE_* of store.h
  chg INTEGER NOT NULL,     -- epoch of the last change
  dchg INTEGER NOT NULL,    -- epoch of the last change of contents, 0 never
  born INTEGER NOT NULL,    -- epoch of creation
  mask INTEGER NOT NULL,    -- REC_CH_* since the last publication
  target BLOB               -- of a symlink
);
CREATE INDEX inode_chg ON inode(chg);
CREATE INDEX inode_orphan ON inode(ino) WHERE nlink = 0;
-- hash: keyed 63-bit hash of the name, the readdir cookie; the key is in kv.
CREATE TABLE dirent(
  parent INTEGER NOT NULL,
  hash INTEGER NOT NULL,
  name BLOB NOT NULL,
  ino INTEGER NOT NULL,
  lid INTEGER NOT NULL,     -- this creation of the name
  mode INTEGER NOT NULL,    -- file type bits
  chg INTEGER NOT NULL,     -- epoch of creation
  PRIMARY KEY(parent, hash, name)
) WITHOUT ROWID;
-- Names made since the last publication, in order; rows whose name has gone are stale.
CREATE TABLE newlink(
  id INTEGER PRIMARY KEY,
  epoch INTEGER NOT NULL,
  parent INTEGER NOT NULL,
  hash INTEGER NOT NULL,
  lid INTEGER NOT NULL
);
-- Published names (kind 1: id = lid) and inodes (kind 2: id = ino) that have gone since.
CREATE TABLE tomb(
  id INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  parent INTEGER,
  name BLOB,
  ino INTEGER,              -- kind 1: what the name led to, and its file type bits;
  mode INTEGER,             -- 1 is added when it was INODE_UNORDERED
  PRIMARY KEY(kind, id)
) WITHOUT ROWID;
CREATE TABLE xattr(
  ino INTEGER NOT NULL,
  name BLOB NOT NULL,
  value BLOB NOT NULL,
  PRIMARY KEY(ino, name)
) WITHOUT ROWID;
-- Contents of small files that are here.
CREATE TABLE small(
  ino INTEGER PRIMARY KEY,
  bytes BLOB NOT NULL
);
-- Contents of small files of a cut that changed before they were packed.
CREATE TABLE capture(
  ino INTEGER PRIMARY KEY,
  bytes BLOB NOT NULL
);
-- Larger files: what is here and what is not published, per 64 MiB of file (range.h).
CREATE TABLE span(
  ino INTEGER NOT NULL,
  chunk INTEGER NOT NULL,
  map BLOB NOT NULL,
  PRIMARY KEY(ino, chunk)
) WITHOUT ROWID;
-- Parts of clean files that may have been overwritten since: dirty after an unclean stop.
CREATE TABLE intent(
  ino INTEGER NOT NULL,
  part INTEGER NOT NULL,
  PRIMARY KEY(ino, part)
) WITHOUT ROWID;
-- Bytes of larger files that were fsynced and need not be in the cache file yet, in the order
-- of seq: written there after an unclean stop.
CREATE TABLE redo(
  ino INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  off INTEGER NOT NULL,
  bytes BLOB NOT NULL,
  PRIMARY KEY(ino, seq)
) WITHOUT ROWID;
-- Where bytes are on the nodes.
CREATE TABLE extent(
  ino INTEGER NOT NULL,
  off INTEGER NOT NULL,
  len INTEGER NOT NULL,
  seg INTEGER NOT NULL,
  seg_off INTEGER NOT NULL,
  PRIMARY KEY(ino, off)
) WITHOUT ROWID;
CREATE TABLE segment(
  seg INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  kind INTEGER NOT NULL,    -- 1 data, 2 records of a commit or snapshot, 3 inline, 4 condemned,
                            -- 5 ahead
  k INTEGER NOT NULL,
  m INTEGER NOT NULL,
  cell_log2 INTEGER NOT NULL,
  cps INTEGER NOT NULL,
  len INTEGER NOT NULL,
  nodes BLOB NOT NULL,      -- u16 a shard
  missing INTEGER NOT NULL, -- shards that are nowhere
  chg INTEGER NOT NULL,     -- epoch of the last change of its places; kind 4: of its death
  seq INTEGER NOT NULL,     -- the commit it came with, as far as that is not published
  data BLOB,                -- kind 3
  live INTEGER NOT NULL DEFAULT 0,  -- bytes of it that extents name, each as often as named
  since INTEGER NOT NULL DEFAULT 0  -- kind 4: when it was condemned, ms since 1970
);
CREATE INDEX segment_missing ON segment(seg) WHERE missing > 0;
CREATE INDEX segment_chg ON segment(chg);
-- Segments that are less than half used, and those that are to be deleted.
CREATE INDEX segment_hollow ON segment(live) WHERE kind = 1 AND len - live * 2 > 0;
CREATE INDEX segment_condemned ON segment(since, seg) WHERE kind = 4;
-- Who uses inline segments: their local numbers begin at 2^40.
CREATE INDEX extent_inline ON extent(seg) WHERE seg >= 1099511627776;
-- The commit that was built and may be on some nodes already.  At most one row.
CREATE TABLE pending(
  seq INTEGER PRIMARY KEY,
  epoch INTEGER NOT NULL,
  head BLOB NOT NULL,
  object BLOB NOT NULL
);
-- What the pending commit says of contents: extents that become true when it is published.
CREATE TABLE staged(
  ino INTEGER NOT NULL,
  off INTEGER NOT NULL,
  len INTEGER NOT NULL,
  seg INTEGER NOT NULL,
  seg_off INTEGER NOT NULL,
  was INTEGER NOT NULL DEFAULT 0,     -- moved there from this segment, 0: contents of the cut
  was_off INTEGER NOT NULL DEFAULT 0, -- and this offset in it
  PRIMARY KEY(ino, off)
) WITHOUT ROWID;
-- Shards that nodes list and nothing here knows, by the hash of their name.
CREATE TABLE stray(
  node INTEGER NOT NULL,
  hash INTEGER NOT NULL,
  since INTEGER NOT NULL,   -- when first seen, ms since 1970
  epoch INTEGER NOT NULL,   -- cuts of earlier epochs may have it in flight
  PRIMARY KEY(node, hash)
) WITHOUT ROWID;
-- Dirty ranges of large files that are stored already, in segments of kind 5, for a commit
-- that is still to come.  A row goes, committed, before the bytes of its range change.
CREATE TABLE ahead(
  ino INTEGER NOT NULL,
  off INTEGER NOT NULL,
  len INTEGER NOT NULL,
  seg INTEGER NOT NULL,
  seg_off INTEGER NOT NULL,
  PRIMARY KEY(ino, off)
) WITHOUT ROWID;
CREATE INDEX ahead_seg ON ahead(seg);
CREATE INDEX segment_ahead ON segment(seg) WHERE kind = 5;
CREATE TABLE node(
  number INTEGER PRIMARY KEY,
  url TEXT NOT NULL,
  member INTEGER NOT NULL,
  chg INTEGER NOT NULL
);
CREATE TABLE device(
  number INTEGER PRIMARY KEY,
  role INTEGER NOT NULL,
  ed_pk BLOB NOT NULL,
  cert BLOB NOT NULL,
  seq INTEGER NOT NULL,     -- newest commit applied
  hash BLOB NOT NULL,
  chg INTEGER NOT NULL
);
-- Shards that lie elsewhere since epoch chg: deleted from node when that is published.
CREATE TABLE moved(
  node INTEGER NOT NULL,
  name TEXT NOT NULL,
  chg INTEGER NOT NULL,
  PRIMARY KEY(node, name)
) WITHOUT ROWID;
