// What npm's pst-extractor finds in a PST: a line of JSON for each folder and each message. With "list", folders only.
const { PSTFile } = require('pst-extractor')
const crypto = require('crypto')

console.error = () => {}
const print = (found) => process.stdout.write(JSON.stringify(found) + '\n')

function bytes(attachment) {
  const stream = attachment.fileInputStream
  const hash = crypto.createHash('sha256')
  const size = stream ? stream.length.toNumber() : 0
  let done = 0
  while (done < size) {
    const block = Buffer.alloc(Math.min(8176, size - done))
    const count = stream.read(block)
    if (count <= 0) break
    hash.update(block.subarray(0, count))
    done += count
  }
  return hash.digest('hex')
}

function message(item, folder) {
  const found = {
    folder, subject: item.subject, sender: item.sentRepresentingName, sender_address: item.sentRepresentingEmailAddress,
    delivered: item.messageDeliveryTime && item.messageDeliveryTime.getTime(),
    submitted: item.clientSubmitTime && item.clientSubmitTime.getTime(),
    read: item.isRead, text: item.body, html: item.bodyHTML, recipients: [], attachments: [],
  }
  // It reads the whole table for each recipient.
  for (let i = 0; i < item.numberOfRecipients && item.numberOfRecipients < 20; i++) {
    const one = item.getRecipient(i)
    found.recipients.push([one.recipientType, one.displayName, one.emailAddress])
  }
  for (let i = 0; i < item.numberOfAttachments; i++) {
    const one = item.getAttachment(i)
    const name = one.longFilename || one.filename
    const inside = one.attachMethod === 5 ? one.embeddedPSTMessage : null
    found.attachments.push([name, inside ? message(inside, '') : bytes(one)])
  }
  return found
}

function walk(folder, names) {
  const path = names.join('/')
  print({ path, count: folder.contentCount })
  if (process.argv[3] !== 'list' && folder.contentCount > 0) {
    for (let item = folder.getNextChild(); item != null; item = folder.getNextChild()) print(message(item, path))
  }
  if (folder.hasSubfolders) for (const child of folder.getSubFolders()) walk(child, [...names, child.displayName])
}

walk(new PSTFile(process.argv[2]).getRootFolder(), [])
