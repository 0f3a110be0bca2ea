/* Arithmetic of counters that wrap, and little-endian fields. The difference of two counts is read as signed. */
#ifndef WRAP_H
#define WRAP_H

#include <stdint.h>

static inline int16_t since16(uint16_t now, uint16_t then)
{
    return (int16_t)(uint16_t)(now - then);
}

static inline int32_t since32(uint32_t now, uint32_t then)
{
    return (int32_t)(now - then);
}

static inline uint16_t get16(const uint8_t *from)
{
    return (uint16_t)((uint16_t)from[0] | (uint16_t)((uint16_t)from[1] << 8));
}

static inline uint32_t get32(const uint8_t *from)
{
    return (uint32_t)get16(from) | (uint32_t)get16(from + 2) << 16;
}

static inline void put16(uint8_t *to, uint16_t value)
{
    to[0] = (uint8_t)value;
    to[1] = (uint8_t)(value >> 8);
}

static inline void put32(uint8_t *to, uint32_t value)
{
    put16(to, (uint16_t)value);
    put16(to + 2, (uint16_t)(value >> 16));
}

#endif
