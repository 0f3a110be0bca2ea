/* Frames on the wire: COBS, CRC-16/IBM-3740, zero delimiter. See firmware_bridge/reject/frames.py, the host's side of it. */
#ifndef FRAMES_H
#define FRAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "messages.h"
#include "tally.h"

#define FRAME_CRC_BYTES 2u
#define FRAME_MAX_BODY (1u + MAX_PAYLOAD + FRAME_CRC_BYTES) /* between two zeros: COBS code byte, payload, CRC */
#define FRAME_MAX_BYTES (FRAME_MAX_BODY + 1u)

typedef struct { /* they stop at 65535 */
    uint16_t frames;
    uint16_t bad_crc;
    uint16_t malformed; /* no COBS, or too short for a payload and its CRC */
    uint16_t oversize;  /* more bytes without a zero than any frame has: wrong baud rate, or not our protocol */
} frames_counts_t;

typedef struct {
    uint8_t body[FRAME_MAX_BODY];
    uint8_t length;
    bool is_skipping; /* inside an oversize frame, until its zero */
    frames_counts_t counts;
} deframer_t;

uint16_t frames_crc16(const uint8_t *bytes, uint8_t length); /* "123456789" gives 29B1h */

/* One byte from the wire. The length of the payload that it completed, which then stands at `body`; else 0. */
uint8_t frames_take(deframer_t *d, uint8_t byte);

/* Make a frame, in place, of the payload at `frame + 1`: code byte, CRC, delimiter. Returns its length.
 * `frame` has FRAME_MAX_BYTES bytes; 1 <= length <= MAX_PAYLOAD. */
uint8_t frames_close(uint8_t *frame, uint8_t length);

#endif
