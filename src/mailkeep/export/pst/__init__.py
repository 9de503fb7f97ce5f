"""Outlook's PST, written: layer upon layer, each in a file that hides it from those above.

    writer     what the exporter asks for: folders, messages, checkpoints
    messages   an item of export.mapi → a node with recipients and attachments
    folders    the tree of folders, their tables; what each folder holds
    store      the nodes that every PST has
    named      ids of named properties
    tables     the columns of each table, as Outlook lays them out
    ltp        property contexts and tables, in a heap
    heap       items and trees of items in blocks of 8 KiB
    ndb        blocks, data trees, subnodes; where they lie in the file
    pages      the two B-trees, the maps of free space, the header
    spool      files beside the PST that hold what is only needed at the end
    counting   how many messages a finished file has, by reading it
    crypt      the cipher, checksums, signatures

Source: [MS-PST], and what Outlook's own files show where that is silent. Sections in comments are of [MS-PST].
"""

from mailkeep.export.pst.counting import count
from mailkeep.export.pst.writer import make

__all__ = ["count", "make"]
