/* A Modbus RTU server: bytes and the time in, reply bytes out through port_room and port_send.
 *
 * Frames are cut by silence, as the standard has it: 3.5 characters, 1.75 ms above 19200 baud. One buffer holds the
 * request and then the reply. While a reply is being sent nothing is heard, so an RS-485 port may keep its receiver on;
 * switching the driver is the port's business.
 */
#ifndef MODBUS_RTU_H
#define MODBUS_RTU_H

#include <stdint.h>

#include "modbus_map.h"

#define MODBUS_REPLY_HEAD 3u /* unit, function, byte count */
#define MODBUS_FRAME (MODBUS_REPLY_HEAD + 2u * MODBUS_MAX_WORDS + 2u)

typedef struct {
    modbus_map_t map;
    uint32_t heard_us; /* the last byte */
    uint16_t silence_us;
    uint16_t crc;     /* over the request so far; 0 when it is whole */
    uint16_t bad_crc; /* stops at 65535 */
    uint8_t unit;
    uint8_t length; /* of the request or the reply; a request may be longer than the buffer, and is then MODBUS_FRAME + 1 */
    uint8_t sent;   /* of the reply */
    bool is_replying;
    uint8_t frame[MODBUS_FRAME];
} modbus_t;

/* Between frames: 3.5 characters of 10 bits up to 19200 baud, fixed above it. */
#define MODBUS_SILENCE_US(baud) ((uint16_t)((baud) > 19200u ? 1750u : 35000000u / (baud)))

void modbus_init(modbus_t *m, reject_t *reject, uint8_t unit, uint16_t silence_us); /* unit: 1..247 */
void modbus_on_byte(modbus_t *m, uint8_t byte, uint32_t now_us);
void modbus_poll(modbus_t *m, uint32_t now_us); /* often: it ends frames, obeys, and sends as the port has room */

#endif
