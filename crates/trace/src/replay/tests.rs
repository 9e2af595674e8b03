use super::*;

#[test]
fn link_addresses_and_ttl_are_no_change_and_anything_else_is() {
    let mut original = vec![0; 64];
    original[12] = 0x08;
    let change = |at: usize| {
        let mut sent = original[..60].to_vec();
        sent[at] ^= 1;
        is_changed(&original, &sent)
    };
    for at in [0, 11, 22, 24, 25] {
        assert!(!change(at), "byte {at}");
    }
    for at in [12, 15, 21, 23, 26, 59] {
        assert!(change(at), "byte {at}");
    }
    assert!(is_changed(&original, &[0; 65]), "it grew");
}
