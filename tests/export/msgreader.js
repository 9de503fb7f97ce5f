// Reads MSG files with npm's @kenjiuno/msgreader, one path a line, and prints what it found as JSON.
const fs = require('fs')
const MsgReader = require('@kenjiuno/msgreader').default

function messageOf(reader, fields) {
  const raw = Object.fromEntries((fields.rawProps || []).map((one) => [one.propertyName || one.propertyTag, one.value]))
  return {
    class: fields.messageClass,
    subject: fields.subject || '',
    normalized: fields.normalizedSubject || '',
    sender: [fields.senderName || '', fields.senderSmtpAddress || ''],
    recipients: fields.recipients.map((one) => [one.name, one.smtpAddress, ['to', 'cc', 'bcc'].indexOf(one.recipType) + 1]),
    sent: Date.parse(fields.clientSubmitTime) / 1000,
    arrived: Date.parse(fields.messageDeliveryTime) / 1000,
    text: fields.body === undefined ? null : fields.body,
    html: fields.html ? Buffer.from(fields.html).toString('utf8') : null,
    headers: fields.headers,
    flags: fields.messageFlags,
    // Of a list it gives the last, as bytes.
    categories: raw.Keywords ? [Buffer.from(raw.Keywords).toString('utf16le').replace('\0', '')] : [],
    attachments: fields.attachments.map((one) => attachmentOf(reader, one)),
  }
}

function attachmentOf(reader, one) {
  const inner = one.innerMsgContent === true
  return {
    name: one.fileName === undefined ? null : one.fileName,
    type: one.attachMimeTag,
    cid: one.pidContentId === undefined ? null : one.pidContentId,
    hidden: one.attachmentHidden === true,
    data: inner ? null : Buffer.from(reader.getAttachment(one).content).toString('base64'),
    message: inner ? messageOf(reader, one.innerMsgContentFields) : null,
  }
}

for (const path of fs.readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
  const reader = new MsgReader(fs.readFileSync(path))
  reader.parserConfig = { includeRawProps: true }
  console.log(JSON.stringify(messageOf(reader, reader.getFileData())))
}
