//! QR codes as PNG pictures.

use qrcode::{Color, EcLevel, QrCode};

/// Pixels per module.
const SCALE: usize = 8;
/// Width of the quiet zone in modules; ISO/IEC 18004 requires four.
const QUIET: usize = 4;

/// Draws a text as a QR code. Returns `None` if the text is too long for one.
pub(crate) fn png(text: &str) -> Option<Vec<u8>> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M).ok()?;
    let (width, modules) = (code.width(), code.to_colors());
    let side = (width + 2 * QUIET) * SCALE;
    let mut pixels = vec![u8::MAX; side * side];
    for (y, line) in pixels.chunks_exact_mut(side).enumerate() {
        for (x, pixel) in line.iter_mut().enumerate() {
            let module = |at: usize| (at / SCALE).checked_sub(QUIET).filter(|at| *at < width);
            let dark = module(x).zip(module(y)).and_then(|(x, y)| modules.get(y * width + x));
            if dark == Some(&Color::Dark) {
                *pixel = 0;
            }
        }
    }
    let side = u32::try_from(side).ok()?;
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().ok()?.write_image_data(&pixels).ok()?;
    Some(png)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_has_a_quiet_zone_and_a_finder_pattern() {
        let png = png("0x1486F47822927e3F2321E0bE433247dDADAf8F8C").unwrap();
        let decoder = png::Decoder::new(std::io::Cursor::new(png));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let side = reader.next_frame(&mut pixels).unwrap().width as usize;
        let at = |x: usize, y: usize| pixels[y * side + x];
        assert_eq!(side % SCALE, 0);
        assert!((0..side).all(|i| at(i, 0) == 255 && at(0, i) == 255));
        // The corner of a finder pattern: dark border, white ring, dark center.
        let module = |x: usize, y: usize| at((QUIET + x) * SCALE, (QUIET + y) * SCALE);
        assert_eq!([module(0, 0), module(1, 1), module(3, 3)], [0, 255, 0]);
    }
}
