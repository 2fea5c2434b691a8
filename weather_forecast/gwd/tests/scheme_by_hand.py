"""The gravity-wave scheme once more, written straight from its equations in scalar Python; slow, for tests."""

import math

G, R, CP = 9.80665, 287.0597, 1004.709


def drag(u, v, t, half, *, launched, n_azimuths, n_speeds, cap="none", lid="closed", p=1.0, s=1.0, ratio=1.0):
    """Tendencies (dudt, dvdt) and fluxes per azimuth and half-level of one column given as lists."""
    levels = len(u)
    gamma, m_star, dt, c_min, c_max = 0.25, 2 * math.pi / 2000, 3600.0, 0.5, 100.0

    def at_half(x):
        return [x[0]] + [(x[k - 1] + x[k]) / 2 for k in range(1, levels)]

    ub, vb, tb = at_half(u), at_half(v), at_half(t)
    rho = [half[k] / (R * tb[k]) for k in range(levels)]
    r = [math.log(half[k + 1] / half[k]) if half[k] > 0 else None for k in range(levels)]
    alpha = [1 - half[k] / (half[k + 1] - half[k]) * r[k] if half[k] > 0 else math.log(2) for k in range(levels)]
    n = [None]
    for k in range(1, levels):
        rise = R * t[k] * (r[k] - alpha[k]) + R * t[k - 1] * alpha[k - 1]
        n2 = G**2 / (CP * tb[k]) * (1 + CP * (t[k] - t[k - 1]) / -rise)
        n.append(math.sqrt(max(n2, 1e-12)))

    x_min, x_max = 1 / c_max, 1 / c_min
    dx = (x_max - x_min) / (n_speeds - 1)
    b1 = (x_max - x_min) / (math.exp((x_max - x_min) / gamma) - 1)
    c, dc = [], []
    for j in range(n_speeds):
        e = math.exp(j * dx / gamma)
        c.append(1 / (b1 * e + x_min - b1))
        dc.append(c[j] ** 2 * b1 / gamma * e * dx)

    c[0], c[-1] = c_max, c_min  # without round-off
    launch = levels - 1
    shape = [rho[launch] / n[launch] * cj / (1 + (m_star * cj / n[launch]) ** (s + 3)) for cj in c]
    amplitude = launched / sum(sj * dcj for sj, dcj in zip(shape, dc, strict=True))

    fluxes = []
    fu, fv = [0.0] * (levels + 1), [0.0] * (levels + 1)
    angles = [2 * math.pi * i / n_azimuths for i in range(n_azimuths)]
    norm = 2 / sum(abs(math.cos(angle)) for angle in angles)
    full = [(half[k] + half[k + 1]) / 2 for k in range(levels)]
    for angle in angles:
        cos, sin = math.cos(angle), math.sin(angle)
        density = [amplitude * sj for sj in shape]
        active = [True] * n_speeds
        c_low, mean = c_min, 0.0
        flux, lost, speed = [0.0] * levels, [0.0] * levels, [0.0] * levels
        flux[launch] = launched
        for k in range(launch - 1, 0, -1):
            wind = cos * (ub[k] - ub[launch]) + sin * (vb[k] - vb[launch])
            c_low = max(c_low, wind)
            moment = 0.0
            for j in range(n_speeds):
                if active[j] and c[j] < c_low:
                    active[j] = False
                    lost[k] += density[j] * dc[j]
                    moment += density[j] * dc[j] * c[j]
            if lost[k] > 0:
                mean = moment / lost[k]
            speed[k] = mean
            for j in range(n_speeds):
                if active[j]:
                    bound = (c[j] - wind) * ((c[j] - wind) / c[j]) ** (2 - p)
                    density[j] = min(density[j], ratio * amplitude * rho[k] / n[k] * bound)
                    flux[k] += density[j] * dc[j]
        if cap != "none":
            sign = 1 if cap == "physical" else -1
            carry = 0.0
            for k in range(1, launch):
                wind = cos * (u[k + 1] - ub[launch]) + sin * (v[k + 1] - vb[launch])
                demand = lost[k] + carry
                room = sign * 2 * (full[k + 1] - full[k]) * (speed[k] - wind) / (G * dt)
                carry = demand - max(0.0, min(demand, room))
                flux[k + 1] -= carry
        flux[0] = flux[1] if lid == "open" else 0.0
        fluxes.append(flux)
        for k in range(levels):
            fu[k] += norm * flux[k] * cos
            fv[k] += norm * flux[k] * sin
    mass = [(half[k + 1] - half[k]) / G for k in range(levels)]
    dudt = [(fu[k + 1] - fu[k]) / mass[k] for k in range(levels)]
    dvdt = [(fv[k + 1] - fv[k]) / mass[k] for k in range(levels)]
    return dudt, dvdt, fluxes
