#include "frames.h"

#include "wrap.h"

uint16_t frames_crc16(const uint8_t *bytes, uint8_t length)
{
    uint16_t crc = 0xFFFFu;
    for (; length; length--) { /* a byte at a time without a table: 512 bytes of flash are too many */
        crc = (uint16_t)((uint16_t)(crc << 8) | (uint16_t)(crc >> 8));
        crc = (uint16_t)(crc ^ *bytes++);
        crc = (uint16_t)(crc ^ (uint16_t)((crc & 0xFFu) >> 4));
        crc = (uint16_t)(crc ^ (uint16_t)(crc << 12));
        crc = (uint16_t)(crc ^ (uint16_t)((crc & 0xFFu) << 5));
    }
    return crc;
}

/* Undo the stuffing of `length` bytes in place. The length of the data, or 0 when it cannot be COBS. */
static uint8_t unstuff(uint8_t *bytes, uint8_t length)
{
    uint8_t from = 0;
    uint8_t to = 0;
    while (from < length) {
        uint8_t code = bytes[from++]; /* never 0: that would have ended the frame */
        if (code - 1u > (uint8_t)(length - from)) {
            return 0;
        }
        while (--code) {
            bytes[to++] = bytes[from++];
        }
        if (from < length) {
            bytes[to++] = 0;
        }
    }
    return to;
}

static uint8_t finish(deframer_t *d, uint8_t body)
{
    const uint8_t data = unstuff(d->body, body);
    if (data <= FRAME_CRC_BYTES) {
        tally(&d->counts.malformed);
        return 0;
    }
    const uint8_t length = (uint8_t)(data - FRAME_CRC_BYTES);
    if (frames_crc16(d->body, length) != get16(d->body + length)) {
        tally(&d->counts.bad_crc);
        return 0;
    }
    tally(&d->counts.frames);
    return length;
}

uint8_t frames_take(deframer_t *d, uint8_t byte)
{
    if (byte == 0) {
        const uint8_t body = d->length; /* 0 after an oversize frame, and of two zeros in a row, which is no error */
        d->length = 0;
        d->is_skipping = false;
        return body ? finish(d, body) : 0;
    }
    if (d->is_skipping) {
        return 0;
    }
    if (d->length == FRAME_MAX_BODY) {
        d->is_skipping = true;
        d->length = 0;
        tally(&d->counts.oversize);
        return 0;
    }
    d->body[d->length++] = byte;
    return 0;
}

uint8_t frames_close(uint8_t *frame, uint8_t length)
{
    put16(frame + 1 + length, frames_crc16(frame + 1, length));
    const uint8_t end = (uint8_t)(1u + length + FRAME_CRC_BYTES);
    uint8_t code = 0; /* where the distance to the next zero goes */
    for (uint8_t at = 1; at < end; at++) {
        if (frame[at] == 0) {
            frame[code] = (uint8_t)(at - code);
            code = at;
        }
    }
    frame[code] = (uint8_t)(end - code);
    frame[end] = 0;
    return (uint8_t)(end + 1u);
}
